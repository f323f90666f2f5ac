"""Installing where the kernels cannot be built: refused when they are required, else said once."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_build import ROOT

from fastzsl.ops import native


@pytest.mark.slow
@pytest.mark.parametrize("required", [False, True])
def test_without_a_compiler(required: bool, tmp_path: Path) -> None:
    if not importlib.util.find_spec("scikit_build_core") or not shutil.which("cmake"):
        pytest.skip("needs scikit-build-core and cmake")
    environment = {**os.environ, "CXX": "/nonexistent", "FASTZSL_REQUIRE_NATIVE": "1" if required else ""}
    code = f"import scikit_build_core.build as b; print(b.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    wheels = list(tmp_path.glob("*.whl"))
    if required:
        assert done.returncode != 0
        assert not wheels
    else:
        assert done.returncode == 0, done.stderr
        assert wheels[0].name.endswith("none-any.whl")
        assert "built without its native CPU kernels" in done.stdout + done.stderr


def test_first_large_call_warns_once() -> None:
    code = """
import sys
sys.modules["fastzsl._native"] = None  # an import of it fails
import torch
from fastzsl.ops import dense_attention
dense_attention(torch.zeros(1, 4, 8), torch.zeros(3, 8))
print("small done", file=sys.stderr)
for _ in range(2):
    dense_attention(torch.zeros(16, 49, 512), torch.zeros(300, 512))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = done.stderr.split("small done")
    assert "RuntimeWarning" not in before
    assert after.count("fastzsl runs plain PyTorch on the CPU") == 1


def test_no_openmp_is_taken_that_is_not_pytorchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch that links no libgomp, in a process where something else has loaded one."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs a C++ compiler on Linux")
    library = tmp_path / "torch" / "lib" / "libtorch_cpu.so"
    library.parent.mkdir(parents=True)
    command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
    subprocess.run(command, input="int nothing;", text=True, check=True)
    ctypes.CDLL(str(library))
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    assert native._torch_openmp() == 0
