"""The kernels under AddressSanitizer + UndefinedBehaviorSanitizer and under ThreadSanitizer, on the shapes of
kernel_driver.cpp, which also compares each result with a plain loop in double.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_build import build, run


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "argument"), [("address,undefined", "all"), ("thread", "threads")])
def test_no_complaint(sanitizer: str, argument: str, tmp_path: Path) -> None:
    assert "portable: good" in run(str(build(tmp_path, f"-DFASTZSL_SANITIZE={sanitizer}")), argument)
