"""pytest-benchmark of `dense_attention`: `pytest bench --benchmark-only`. The result is checked before it is timed."""

from __future__ import annotations

import pytest

from bench.cases import CASES, contestants, inputs_of, truth_of
from bench.measure import check

ATTENTION = [case for case in CASES if case.op == "dense_attention"]
NAMES = ("native", "einsum", "matmul + bmm", "SDPA")


@pytest.mark.parametrize("contestant", NAMES)
@pytest.mark.parametrize("case", ATTENTION, ids=lambda case: case.name)
def test_attention(benchmark, case, contestant) -> None:  # type: ignore[no-untyped-def]
    inputs = inputs_of(case)
    runs = contestants(case, inputs)
    check({contestant: runs[contestant]}, truth_of(case, inputs), case.dtype)
    benchmark.group = case.name
    benchmark(runs[contestant])
