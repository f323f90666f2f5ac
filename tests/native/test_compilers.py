"""Other compilers, other flags, another architecture."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_build import ROOT, build, run

CSRC = ROOT / "csrc"
AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
FLAGS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "avx512bf16": [*AVX512, "-mavx512bf16"],
    "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}


@pytest.mark.parametrize("isa", FLAGS)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_compiles_under_flags_that_offer_more_than_the_instruction_set(compiler: str, isa: str) -> None:
    """CXXFLAGS=-march=native on a machine with AVX-512 defines its macros in every file."""
    if platform.machine() != "x86_64":
        pytest.skip("these instruction sets are of x86-64")
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    command = [compiler, "-std=c++20", "-march=x86-64-v4", *FLAGS[isa], "-fsyntax-only", "-I", str(CSRC)]
    done = subprocess.run([*command, str(CSRC / "isa" / f"{isa}.cpp")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_clang_builds_the_same_kernels(tmp_path: Path) -> None:
    if not shutil.which("clang++"):
        pytest.skip("no clang++ here")
    assert "portable: good" in run(str(build(tmp_path, "-DCMAKE_CXX_COMPILER=clang++")), "all")


@pytest.mark.slow
def test_avx512_and_amx_compute_what_they_should_in_emulation(tmp_path: Path) -> None:
    """Their intrinsics in plain C++ (emulated/immintrin.h): a machine without these units tests their code as well."""
    driver = str(build(tmp_path, "-DFASTZSL_EMULATE=ON"))
    good = ["portable", "avx512", "avx512bf16", "amx", "amx"]  # the last with float32 always as bf16x3
    assert run(driver, "all").split("\n") == [*(f"{name}: good" for name in good), ""]
    assert run(driver, "fork") == "fork: good\n"


@pytest.mark.slow
def test_the_portable_set_runs_on_arm(tmp_path: Path) -> None:
    """Cross-compiled for 64-bit ARM and run in emulation."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if not compiler or not emulator:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)")
    driver = build(
        tmp_path,
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )
    assert run(emulator, str(driver), "all") == "portable: good\n"
