"""Means, spreads and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a sample (n - 1); NaN for the deviation of a single value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return float(np.mean(values)), sd


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two methods over the same seeds and splits.

    Attributes:
        mean: of first - second.
        low, high: the confidence interval of the mean, Student's t with n - 1 degrees of freedom.
        p: two-sided p value of the paired t test.
        wins: pairs in which the first is higher.
        n: pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    wins: int
    n: int

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> PairedDifference:
    """Compare two methods that were run on the same seeds, in the same order.

    Pairing removes how easy or hard a split is for both methods. The interval is over seeds and splits; the images of
    a split are taken as fixed.

    Raises:
        ValueError: different numbers of values.

    >>> paired_difference([0.7, 0.8, 0.75], [0.6, 0.7, 0.7]).wins
    3
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values against {len(second)}; wanted pairs")
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n, mean, wins = len(a), float((a - b).mean()), int((a > b).sum())
    if n < 2:
        return PairedDifference(mean, math.nan, math.nan, math.nan, wins, n)
    if np.ptp(a - b) < 1e-12:  # scipy divides by the deviation
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0, wins, n)
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(confidence)
    return PairedDifference(mean, float(low), float(high), float(test.pvalue), wins, n)
