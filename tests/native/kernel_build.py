"""Builds the kernels with their driver, kernel_driver.cpp, without Python, by any compiler and options of CMake."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, *options: str, target: str = "kernel_driver") -> Path:
    """The driver. Skips the test where CMake is absent or the compiler lacks the runtime of a sanitizer."""
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler here")
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DFASTZSL_PYTHON=OFF", *options]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    done = subprocess.run(configure, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    command = ["cmake", "--build", str(folder), "--target", target, "--parallel", str(os.cpu_count() or 1)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "cannot find -l" in done.stderr or "cannot find lib" in done.stderr:
        pytest.skip(f"this compiler lacks a runtime for {' '.join(options)}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / target


def run(*command: str) -> str:
    """What the driver prints, which must end well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
