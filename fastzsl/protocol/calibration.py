"""Gamma of equation 9, chosen on held-out seen classes of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastzsl.protocol.metrics import TestScores, seen_unseen_curve


def best_common_gamma(problems: Sequence[TestScores]) -> float:
    """The gamma with the highest mean H over several problems; the middle, if a range of gammas has it.

    Args:
        problems: scores on held-out seen classes; without any, gamma is 0.
    """
    if not problems:
        return 0.0
    curves = [seen_unseen_curve(scores) for scores in problems]
    breaks = torch.cat([curve.breaks for curve in curves]).unique()
    if not len(breaks):
        return 0.0
    middles = torch.cat([breaks[:1] - 1e-3, (breaks[1:] + breaks[:-1]) / 2, breaks[-1:] + 1e-3])
    mean = torch.stack([c.harmonic[torch.searchsorted(c.breaks, middles)] for c in curves]).mean(0)
    return float(middles[int(mean.argmax())])
