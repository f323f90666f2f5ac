"""Timing on a shared machine: check the results, run the rivals in turn, take medians, and measure the peak between."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fastzsl import _native

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


Clock = Callable[[], float]


def peak(dtype: torch.dtype, clock: Clock, seconds: float = 0.05) -> float:
    """Floating-point operations per second of `clock`, which uses registers only, on all threads."""
    rate = _native.peak_f32 if dtype == torch.float32 else _native.peak_bf16
    wall, start = time.perf_counter(), clock()
    done = rate(seconds, torch.get_num_threads())
    return 2 * done * (time.perf_counter() - wall) / (clock() - start)


def check(runs: dict[str, Callable[[], list[Tensor]]], truth: Tensor, dtype: torch.dtype) -> None:
    """Check the results before timing: outputs against float64, gradients against those of the first contestant.

    Raises:
        AssertionError: naming the contestant and its error.
    """
    first: list[Tensor] = []
    for name, run in runs.items():
        result, *grads = run()
        error = float((result.double() - truth).norm() / truth.norm())
        assert error < TOLERANCE[dtype], f"{name}: relative error {error:.1e}"
        first = first or grads
        for a, b in zip(grads, first):
            difference = float((a.double() - b.double()).norm() / b.double().norm())
            assert difference < 10 * TOLERANCE[dtype], f"{name}: a gradient differs by {difference:.1e}"


def interleaved(
    runs: dict[str, Callable[[], list[Tensor]]],
    dtype: torch.dtype,
    clock: Clock,
    seconds: float,
    rounds: int = 100,
) -> tuple[dict[str, float], float]:
    """(median seconds of each contestant, median peak).

    All run once in each round, so that a slow phase of the machine affects all of them. Each round has another order,
    because a contestant's time depends on what the one before it left in the caches.
    """
    shuffled = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks: list[float] = []
    begin = time.perf_counter()
    for r in range(rounds):
        if r >= 5 and time.perf_counter() - begin > seconds:
            break
        peaks.append(peak(dtype, clock, 0.01))
        for name in shuffled.sample(list(runs), len(runs)):
            start = clock()
            runs[name]()
            times[name].append(clock() - start)
    return {name: statistics.median(t) for name, t in times.items()}, statistics.median(peaks)
