"""The kernels under AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer, on the shapes of
sanitize_driver.cpp, which also compares each result with a plain loop in double.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "argument"), [("address,undefined", "all"), ("thread", "threads")])
def test_no_complaint(sanitizer: str, argument: str, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler here")
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(tmp_path),
        "-DFASTZSL_PYTHON=OFF",
        f"-DFASTZSL_SANITIZE={sanitizer}",
    ]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    done = subprocess.run(configure, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    build = ["cmake", "--build", str(tmp_path), "--parallel", str(os.cpu_count() or 1)]
    done = subprocess.run(build, capture_output=True, text=True)
    if "cannot find -l" in done.stderr or "cannot find lib" in done.stderr:
        pytest.skip(f"this compiler has no runtime for {sanitizer}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [str(tmp_path / "sanitize_driver"), argument], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "portable: good" in done.stdout
