"""FASTZSL_ISA forces an instruction set; one that is not here is refused with a message that says what is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fastzsl import _native
from fastzsl.ops.dispatch import Call
from fastzsl.ops.native import refuses


def run(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTZSL_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_strongest_is_chosen() -> None:
    assert "portable" in _native.isas()
    done = run("", "from fastzsl import _native; print(_native.isa())")
    assert done.stdout.strip() == _native.isas()[-1]


def test_environment_forces_one() -> None:
    done = run("portable", "from fastzsl import _native; print(_native.isa())")
    assert done.stdout.strip() == "portable"


def test_one_that_is_not_here_is_refused() -> None:
    with pytest.raises(ValueError, match=r'"sse9" is not available.*portable'):
        _native.set_isa("sse9")
    done = run("sse9", "from fastzsl.ops import backends; print(backends()['native'])")
    assert done.returncode == 1
    assert 'FASTZSL_ISA: instruction set "sse9" is not available' in done.stderr


def test_what_it_cannot_serve_is_said() -> None:
    call = Call("dense_attention", torch.device("cpu"), torch.float64, 1, 1, 1, 1)
    assert "float64" in refuses(call)[0]
    assert "meta" in refuses(call._replace(device=torch.device("meta"), dtype=torch.float32))[0]
