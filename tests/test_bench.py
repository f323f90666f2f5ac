"""The benchmarks run as their documentation says, and check what they time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastzsl.ops import native

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_pytest_benchmark_compares_the_kernels() -> None:
    case = "bench/test_scores.py::test_scores[scores, f32, dot, B=1, C=10, d=512"
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "--benchmark-max-time=0.05", "-q"]
    done = subprocess.run(
        [*command, f"{case}-native]", f"{case}-einsum]"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "Median" in done.stdout


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.measure import check

    truth = torch.ones(3, 4, dtype=torch.float64)
    check({"right": lambda: [truth.float()]}, truth, torch.float32)
    with pytest.raises(AssertionError, match="wrong: relative error"):
        check({"wrong": lambda: [truth.float() * 1.01]}, truth, torch.float32)
