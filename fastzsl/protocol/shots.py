"""A few images of a new class beside its description: how much they count, chosen on held-out seen classes.

    s_c(x) + w_n · spread · cos(x - centre, mean_c - centre)

x is the pooled feature of an image, mean_c the mean of a class's n images, or of all its training images if it has any,
centre the mean of the training images, and spread the usual deviation of the scores of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.protocol.metrics import TestScores, bias_of, harmonic_mean, per_class_accuracy
from fastzsl.protocol.scoring import pooled_features

COUNTS = (1, 2, 5, 10, 20)
"""Numbers of images for which a weight is chosen; another number takes the weight of the nearest one below."""
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
REPEATS = 3
"""Draws of the images of each class."""


@dataclass(frozen=True)
class ClassMeans:
    """Pooled features of the training images.

    Attributes:
        centre: (d,) float32, their mean.
        means: (C_s, d) float32, the mean of each seen class.
    """

    centre: Tensor
    means: Tensor


@dataclass(frozen=True)
class ShotWeights:
    """What was chosen on held-out seen classes.

    Attributes:
        spread: mean over images of the standard deviation over classes of the scores.
        weights: number of images -> w.
    """

    spread: float
    weights: Mapping[int, float]

    def weight(self, count: int) -> float:
        """w · spread for `count` images of a class."""
        known = [n for n in sorted(self.weights) if n <= count]
        return self.spread * self.weights[known[-1] if known else min(self.weights)]

    def as_dict(self) -> dict[str, Any]:
        return {"spread": self.spread, "weights": {str(n): w for n, w in self.weights.items()}}


def class_means(data: ZeroShotDataset) -> ClassMeans:
    """Means of the training images of a data set with region features."""
    rows = pooled_features(data, data.trainval)
    labels = torch.searchsorted(data.seen, data.labels[data.trainval])
    counts = torch.bincount(labels, minlength=len(data.seen)).clamp_min(1)
    sums = torch.zeros(len(data.seen), rows.shape[1]).index_add_(0, labels, rows)
    return ClassMeans(rows.mean(0), sums / counts[:, None])


def similarity(features: Tensor, centre: Tensor, means: Tensor) -> Tensor:
    """cos(x - centre, mean - centre) of pooled features (B, d) and means (C, d): (B, C)."""
    return F.normalize(features - centre, dim=1) @ F.normalize(means - centre, dim=1).mT


def choose_shot_weights(
    problems: Sequence[ZeroShotDataset], scores: Sequence[TestScores], gamma: float, seed: int = 0
) -> ShotWeights | None:
    """For each number of images the weight with the highest mean H over the problems, at `gamma`.

    Args:
        problems: of held-out seen classes; some images of a held-out class are used as the few, the others are scored.
        scores: of their test images.
        gamma: chosen on them.
        seed: of the drawn images.

    Returns:
        None without problems, or if the held-out classes have too few images.
    """
    if not problems:
        return None
    spread = sum(float(torch.cat([s.seen_scores, s.unseen_scores]).std(1).mean()) for s in scores) / len(
        scores
    )
    means = [class_means(data) for data in problems]
    chosen = {}
    for count in COUNTS:
        totals = torch.zeros(len(WEIGHTS), dtype=torch.float64)
        for data, own, found in zip(problems, scores, means):
            if int(torch.bincount(own.unseen_labels)[data.unseen].min()) <= count:
                break
            for repeat in range(REPEATS):
                generator = torch.Generator().manual_seed(seed * 1000 + repeat)
                totals += _harmonic_means(data, own, found, gamma, spread, count, generator)
        else:
            chosen[count] = WEIGHTS[int(totals.argmax())]
    return ShotWeights(spread, chosen) if chosen and spread > 0 else None


def _harmonic_means(
    data: ZeroShotDataset,
    scores: TestScores,
    found: ClassMeans,
    gamma: float,
    spread: float,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """H (W,) for every weight, with `count` drawn images of each held-out class."""
    rows = pooled_features(data, data.test_unseen)
    means = torch.zeros(data.num_classes, rows.shape[1])
    means[data.seen] = found.means
    kept = torch.ones(len(rows), dtype=torch.bool)
    for label in data.unseen.tolist():
        places = (scores.unseen_labels == label).nonzero().flatten()
        drawn = places[torch.randperm(len(places), generator=generator)[:count]]
        means[label] = rows[drawn].mean(0)
        kept[drawn] = False
    bias = bias_of(scores, gamma)
    near_unseen = similarity(rows[kept], found.centre, means)
    near_seen = similarity(pooled_features(data, data.test_seen), found.centre, means)
    labels = scores.unseen_labels[kept]
    result = []
    for weight in WEIGHTS:
        unseen = (scores.unseen_scores[kept] + weight * spread * near_unseen + bias).argmax(1)
        seen = (scores.seen_scores + weight * spread * near_seen + bias).argmax(1)
        U = float(per_class_accuracy(unseen, labels, data.unseen).nanmean())
        S = float(per_class_accuracy(seen, scores.seen_labels, data.seen).nanmean())
        result.append(harmonic_mean(S, U))
    return torch.tensor(result, dtype=torch.float64)


def read_shot_weights(values: Any, where: str) -> ShotWeights | None:
    """The inverse of `as_dict`; None for None.

    Raises:
        UserError: other values.
    """
    if values is None:
        return None
    try:
        weights = {int(n): float(w) for n, w in values["weights"].items()}
        spread = float(values["spread"])
        if (
            not weights
            or not 0 < spread < float("inf")
            or not all(0 <= w <= max(WEIGHTS) for w in weights.values())
        ):
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        raise UserError(f"{where}: shots are damaged; wanted numbers that training wrote") from None
    return ShotWeights(spread, weights)
