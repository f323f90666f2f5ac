"""Gamma of equation 9, chosen on held-out seen classes of the training pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.protocol.metrics import TestScores, seen_unseen_curve


def choose_gamma(
    data: ZeroShotDataset, train_and_score: Callable[[ZeroShotDataset], TestScores], folds: int, seed: int
) -> float:
    """Train on problems made of seen classes alone and take the gamma with the highest mean H over them.

    Each fold holds out as large a share of the seen classes as the unseen classes are of all. The functions called
    get `data.hold_out(...)`, which cannot reach a test picture.

    Args:
        data: the full problem.
        train_and_score: trains a model on a problem and scores its test splits.
        folds: problems to train; 0 gives gamma 0.
        seed: decides the held-out classes.
    """
    if not folds:
        return 0.0
    share = len(data.unseen) / data.num_classes
    return best_common_gamma(
        [train_and_score(data.hold_out(seed * 1000 + fold, share)) for fold in range(folds)]
    )


def best_common_gamma(problems: Sequence[TestScores]) -> float:
    """The gamma with the highest H on average over several problems, the middle of its stretch."""
    curves = [seen_unseen_curve(scores) for scores in problems]
    breaks = torch.cat([curve.breaks for curve in curves]).unique()
    if not len(breaks):
        return 0.0
    middles = torch.cat([breaks[:1] - 1e-3, (breaks[1:] + breaks[:-1]) / 2, breaks[-1:] + 1e-3])
    mean = torch.stack([c.harmonic[torch.searchsorted(c.breaks, middles)] for c in curves]).mean(0)
    return float(middles[int(mean.argmax())])
