"""Run interpreted/, and the derivatives of tests/ops through the backend "triton", in processes of their own: Triton
decides at import whether its kernels are interpreted."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"
FILES = [*sorted(FOLDER.glob("test_*.py")), FOLDER.parents[1] / "ops" / "test_transforms.py"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_kernels_in_the_interpreter(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, "no test ran"
    assert int(passed[1]) >= 15
    assert "skipped" not in done.stdout.splitlines()[-1]
