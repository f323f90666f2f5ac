"""pytest-benchmark of `attended_scores`: `pytest bench --benchmark-only`. The result is checked before it is timed."""

from __future__ import annotations

import pytest

from bench.cases import CASES, contestants, inputs_of, truth_of
from bench.measure import check

SCORES = [case for case in CASES if case.op == "scores"]
NAMES = ("native", "einsum", "matmul + bmm", "SDPA", "rewritten, project", "rewritten, prototype")


@pytest.mark.parametrize("contestant", NAMES)
@pytest.mark.parametrize("case", SCORES, ids=lambda case: case.name)
def test_scores(benchmark, case, contestant) -> None:  # type: ignore[no-untyped-def]
    inputs = inputs_of(case)
    runs = contestants(case, inputs)
    if contestant not in runs:
        pytest.skip("this order is not for this similarity")
    check({contestant: runs[contestant]}, truth_of(case, inputs), case.dtype)
    benchmark.group = case.name
    benchmark(runs[contestant])
