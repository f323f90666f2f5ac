"""Every header of csrc/ compiles alone: it includes what it uses."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
# Headers of one instruction set, which its source file configures as here (see csrc/isa/vector.hpp).
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
TILES = ["-DFZ_SPACE=amx", "-DFZ_W=16", "-DFZ_MR=14", '-DFZ_REGISTER="v"', *AVX512]
FLAGS = {"isa/amx_bf16x3.hpp": TILES, "isa/amx_tiles.hpp": TILES, "isa/bf16_pairs.hpp": TILES}


@pytest.mark.parametrize("header", sorted(str(path.relative_to(CSRC)) for path in CSRC.rglob("*.hpp")))
def test_compiles_alone(header: str) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler here")
    if header in FLAGS and platform.machine() != "x86_64":
        pytest.skip("this header is of x86-64")
    command = [compiler, "-std=c++20", "-fsyntax-only", "-I", str(CSRC), *FLAGS.get(header, [])]
    done = subprocess.run(
        [*command, "-x", "c++", "-"], input=f'#include "{header}"\n', capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
