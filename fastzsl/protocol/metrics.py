"""The figures of zero-shot learning: per-class accuracy, calibrated stacking, and the seen-unseen curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor


def per_class_accuracy(predicted: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """Share of each class's images that were recognised.

    Its mean is the protocol's top-1: the average over the classes of the split, not over the predicted classes.

    Args:
        predicted, labels: (N,) class ids.
        classes: (C',) the ids of the split; a class without an image gives NaN.

    Returns:
        (C',) fractions.
    """
    size = int(classes.max()) + 1
    if len(labels):
        size = max(size, int(labels.max()) + 1)
    right = torch.bincount(labels[predicted == labels], minlength=size).double()
    return right[classes] / torch.bincount(labels, minlength=size).double()[classes]


def harmonic_mean(seen: float, unseen: float) -> float:
    """H = 2SU / (S + U), 0 if both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


@dataclass(frozen=True)
class TestScores:
    """Scores of the test images against all classes: all that evaluation needs.

    Attributes:
        seen_scores: (N_s, C) of test_seen images; unseen_scores: (N_u, C) of test_unseen images.
        seen_labels, unseen_labels: their class ids.
        seen, unseen: ids of the classes.
        conventional_scores: (N_u, C_u) of test_unseen images against the unseen classes alone, for a model whose
            scores depend on the set of classes; for other models empty, because `unseen_scores` has these columns.
    """

    __test__ = False  # not a pytest class

    seen_scores: Tensor
    seen_labels: Tensor
    unseen_scores: Tensor
    unseen_labels: Tensor
    seen: Tensor
    unseen: Tensor
    conventional_scores: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def conventional_rows(self) -> Tensor:
        """(N_u, C_u) scores of test_unseen images among the unseen classes alone."""
        own = self.conventional_scores
        return own if len(own) else self.unseen_scores[:, self.unseen]

    @property
    def conventional(self) -> Tensor:
        """(N_u,) class ids that equation 8 gives the test_unseen images: the best of the unseen classes."""
        return self.unseen[self.conventional_rows.argmax(1)]


@dataclass(frozen=True)
class Results:
    """Accuracies as fractions.

    Attributes:
        T1: conventional top-1, unseen images among unseen classes (equation 8).
        U, S, H: generalised, with `gamma` added to the unseen classes' scores (equation 9).
        gamma: the calibration.
        U0, S0, H0: the same without calibration.
        AUSUC: area under the curve of S over U for all gamma.
    """

    T1: float
    U: float
    S: float
    H: float
    gamma: float
    U0: float
    S0: float
    H0: float
    AUSUC: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class SeenResults:
    """Accuracies where no unseen class has a test image, as fractions.

    Attributes:
        S: test images of seen classes, choice among all classes with `gamma` added to the unseen ones.
        gamma: the calibration.
        S0: the same without calibration; equal to S if there is no unseen class.
    """

    S: float
    gamma: float
    S0: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class SeenUnseenCurve:
    """U and S for every gamma, exactly: both are step functions that change at break points only.

    Attributes:
        breaks: (P,) sorted gammas at which U or S change.
        U, S: (P + 1,) float64 accuracies before the first, between, and after the last break point.
    """

    breaks: Tensor
    U: Tensor
    S: Tensor

    @property
    def area(self) -> float:
        """AUSUC: the area under S over U. If both change at one gamma, the points are joined by a straight line."""
        return float(torch.trapezoid(self.S, self.U))

    @property
    def harmonic(self) -> Tensor:
        """H (P + 1,) of each piece."""
        return torch.nan_to_num(2 * self.U * self.S / (self.U + self.S))


def seen_unseen_curve(scores: TestScores) -> SeenUnseenCurve:
    """Calibrated stacking for every gamma at once.

    Above some gamma, an image's best unseen score is higher than its best seen score, and the image is assigned to an
    unseen class. Which unseen class that is does not depend on gamma. So each image has one break point.
    """
    seen_margin, seen_weight = _margins(scores.seen_scores, scores.seen_labels, scores.seen, scores)
    unseen_margin, unseen_weight = _margins(scores.unseen_scores, scores.unseen_labels, scores.unseen, scores)
    breaks, place = torch.cat([seen_margin, unseen_margin]).unique(sorted=True, return_inverse=True)
    lost, gained = (torch.zeros(len(breaks), dtype=torch.float64) for _ in range(2))
    lost.index_add_(0, place[: len(seen_margin)], seen_weight)
    gained.index_add_(0, place[len(seen_margin) :], unseen_weight)
    zero = torch.zeros(1, dtype=torch.float64)
    # S is summed from the last gamma, so that it ends at exactly 0; U is summed from the first.
    return SeenUnseenCurve(
        breaks, U=torch.cat([zero, gained.cumsum(0)]), S=torch.cat([lost.flip(0).cumsum(0).flip(0), zero])
    )


def _margins(scores: Tensor, labels: Tensor, own: Tensor, all_: TestScores) -> tuple[Tensor, Tensor]:
    """Break points (N,) and weights (N,): 1 / (classes · images of the class) if right within its group."""
    scores = scores.double()
    margin = scores[:, all_.seen].amax(1) - scores[:, all_.unseen].amax(1)
    right = own[scores[:, own].argmax(1)] == labels
    images = torch.bincount(labels, minlength=int(own.max()) + 1).double()
    present = (images[own] > 0).sum()
    return margin, right.double() / (images[labels] * present)


def evaluate_run(scores: TestScores, gamma: float) -> Results | SeenResults:
    """The figures of a run: all of them, or those of seen classes if no unseen class has a test image."""
    if len(scores.unseen_labels):
        return evaluate(scores, gamma)
    found = (scores.seen_scores.double() + bias_of(scores, g) for g in (gamma, 0.0))
    S, S0 = (_mean_accuracy(rows.argmax(1), scores.seen_labels, scores.seen) for rows in found)
    return SeenResults(S, gamma, S0)


def bias_of(scores: TestScores, gamma: float) -> Tensor:
    """(C,) float64, gamma for unseen classes and 0 for seen ones."""
    bias = torch.zeros(scores.seen_scores.shape[1], dtype=torch.float64)
    bias[scores.unseen] = gamma
    return bias


def evaluate(scores: TestScores, gamma: float) -> Results:
    """T1, and U, S, H with `gamma` and without, and AUSUC."""
    T1 = conventional_accuracy(scores)
    (U, S), (U0, S0) = generalised(scores, gamma), generalised(scores, 0.0)
    return Results(
        T1, U, S, harmonic_mean(S, U), gamma, U0, S0, harmonic_mean(S0, U0), seen_unseen_curve(scores).area
    )


def conventional_accuracy(scores: TestScores) -> float:
    """T1 of equation 8."""
    return _mean_accuracy(scores.conventional, scores.unseen_labels, scores.unseen)


def generalised(scores: TestScores, gamma: float) -> tuple[float, float]:
    """(U, S): per-class top-1 of equation 9, y = argmax_c s_c + gamma · [c unseen]."""
    bias = bias_of(scores, gamma)
    U = _mean_accuracy((scores.unseen_scores.double() + bias).argmax(1), scores.unseen_labels, scores.unseen)
    S = _mean_accuracy((scores.seen_scores.double() + bias).argmax(1), scores.seen_labels, scores.seen)
    return U, S


def _mean_accuracy(predicted: Tensor, labels: Tensor, classes: Tensor) -> float:
    return float(per_class_accuracy(predicted, labels, classes).nanmean())
