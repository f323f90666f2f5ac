"""Probabilities from scores, and a threshold for "none of these", both chosen on held-out seen classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from fastzsl.errors import UserError
from fastzsl.protocol.metrics import TestScores, bias_of

T = TypeVar("T")
BINS = 15
"""Bins of the calibration error."""
STEPS = 60
"""Temperatures tried in each of two passes, the second around the best of the first."""


@dataclass(frozen=True)
class Probabilities:
    """softmax(scores / temperature), and when to answer "none of these".

    Attributes:
        temperature: above 0.
        calibration_error: expected calibration error, a fraction: the mean difference between the probability of the
            best class and the share of right answers.
        reject_by: what the threshold is compared with: the best class's "probability" or its "score" with gamma.
        threshold: below it no candidate fits; None where it could not be chosen.
        accepted: share of the images of candidate classes that are not rejected.
        rejected: share of the images of other classes that are rejected.
    """

    temperature: float
    calibration_error: float
    reject_by: Literal["probability", "score"] = "probability"
    threshold: float | None = None
    accepted: float | None = None
    rejected: float | None = None

    def of(self, scores: Tensor) -> Tensor:
        """(..., C) scores with gamma -> probabilities that sum to 1."""
        return (scores.double() / self.temperature).softmax(-1).to(scores.dtype)

    def none_of_these(self, scores: Tensor) -> Tensor | None:
        """(..., C) scores with gamma -> (...) bool; None without a threshold."""
        if self.threshold is None:
            return None
        best = self.of(scores).amax(-1) if self.reject_by == "probability" else scores.amax(-1)
        return best < self.threshold

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Rows(NamedTuple):
    """Scores (N, C) with gamma, the right columns (N,), and weights (N,) that make classes equal."""

    scores: Tensor
    labels: Tensor
    weights: Tensor


def fit_probabilities(problems: Sequence[TestScores], gamma: float) -> dict[str, Probabilities]:
    """Temperatures and thresholds for a choice "among_all" classes and one "among_unseen" classes alone.

    The temperature minimises the mean negative log-likelihood, every class weighted equally (Guo et al., 2017). For the
    threshold, half of the held-out classes are removed from the candidates in turn: their images must be rejected, all
    others accepted; it maximises the mean of the two shares. The figures of each problem are measured with what was
    chosen on the other problems, if there are several.

    Args:
        problems: scores on held-out seen classes.
        gamma: chosen on them.

    Returns:
        Empty without problems.
    """
    if not problems:
        return {}
    return {
        "among_all": _fit([_among_all(p, gamma) for p in problems], [_open(p, gamma) for p in problems]),
        "among_unseen": _fit([_among_unseen(p) for p in problems], [_open_unseen(p) for p in problems]),
    }


def read_probabilities(values: Any, where: str) -> dict[str, Probabilities]:
    """The inverse of `as_dict` for the two choices; empty for None.

    Raises:
        UserError: values of other names or types.
    """
    try:
        found = {name: Probabilities(**entry) for name, entry in (values or {}).items()}
        for entry in found.values():
            numbers = [entry.temperature, entry.calibration_error, entry.threshold or 0.0]
            if not all(math.isfinite(n) for n in numbers) or entry.temperature <= 0:
                raise ValueError
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{where}: probabilities are damaged; wanted numbers that training wrote") from None
    return found


def _fit(closed: list[_Rows], open_: list[list[tuple[_Rows, Tensor]]]) -> Probabilities:
    """Args: rows of each problem; rows with removed classes, and which of their images are of a candidate."""
    temperature = _best_temperature(closed)
    errors = [_calibration_error(own, _best_temperature(others)) for own, others in _left_out(closed)]
    options = []
    for by in ("probability", "score"):
        judged = [
            [
                _Judged(_confidence(rows, temperature, by), rows.weights, known)
                for rows, known in pairs
                if rows.scores.shape[1] > 1 or by == "score"
            ]
            for pairs in open_
        ]
        judged = [pairs for pairs in judged if pairs]
        if judged:
            options.append(_Option(by, judged))
    error = sum(errors) / len(errors)
    if not options:
        return Probabilities(temperature, error)
    best = max(options, key=lambda o: o.accepted + o.rejected)
    return Probabilities(
        temperature, error, best.by, best.threshold, best.accepted, best.rejected  # type: ignore[arg-type]
    )  # fmt: skip


def _left_out(parts: list[T]) -> list[tuple[T, list[T]]]:
    """Each part with the others, or with itself if it is alone."""
    return [(own, [p for p in parts if p is not own] or [own]) for own in parts]


class _Judged(NamedTuple):
    """Confidences (N,), weights (N,), and whether an image's class is a candidate (N,)."""

    confidence: Tensor
    weights: Tensor
    known: Tensor


class _Option:
    """A threshold on one kind of confidence, and its shares on problems that did not choose it."""

    def __init__(self, by: str, problems: list[list[_Judged]]) -> None:
        self.by = by
        self.threshold = _best_threshold(_joined(problems))
        shares = [
            _shares(_joined([own]), _best_threshold(_joined(others))) for own, others in _left_out(problems)
        ]
        self.accepted = sum(a for a, _ in shares) / len(shares)
        self.rejected = sum(r for _, r in shares) / len(shares)


def _joined(problems: list[list[_Judged]]) -> _Judged:
    every = [judged for problem in problems for judged in problem]
    return _Judged(*(torch.cat(parts) for parts in zip(*every)))


def _best_threshold(judged: _Judged) -> float:
    """The threshold with the highest mean of accepted and rejected shares, between two confidences."""
    order = judged.confidence.argsort()
    confidence, known = judged.confidence[order], judged.known[order]
    lost, caught = (
        (judged.weights[order] * chosen).cumsum(0) / (judged.weights[order] * chosen).sum().clamp_min(1e-12)
        for chosen in (known.double(), (~known).double())
    )
    gain = torch.cat([torch.zeros(1, dtype=torch.float64), caught - lost])
    # Equal confidences are rejected together.
    gain[1:-1][confidence[1:] == confidence[:-1]] = -1
    place = int(gain.argmax())
    low = confidence[max(place - 1, 0)]
    return float((low + confidence[min(place, len(confidence) - 1)]) / 2) if place else float(low) - 1e-6


def _shares(judged: _Judged, threshold: float) -> tuple[float, float]:
    """Accepted share of known images and rejected share of unknown ones."""
    kept = (judged.confidence >= threshold).double()
    known, unknown = judged.weights * judged.known, judged.weights * ~judged.known
    return float((known * kept).sum() / known.sum()), float((unknown * (1 - kept)).sum() / unknown.sum())


def _confidence(rows: _Rows, temperature: float, by: str) -> Tensor:
    return (rows.scores / temperature).softmax(1).amax(1) if by == "probability" else rows.scores.amax(1)


def _best_temperature(parts: Sequence[_Rows]) -> float:
    """The temperature with the lowest weighted negative log-likelihood."""
    spread = float(torch.cat([(p.scores - p.scores.mean(1, keepdim=True)).flatten() for p in parts]).std())
    if not spread > 0:
        return 1.0

    def loss(temperature: float) -> float:
        total = sum(_nll(p, temperature) for p in parts)
        return total / sum(float(p.weights.sum()) for p in parts)

    low, high = math.log(spread) - 7, math.log(spread) + 7
    for _ in range(2):
        grid = torch.linspace(low, high, STEPS).exp().tolist()
        place = grid.index(min(grid, key=loss))
        low = math.log(grid[max(place - 1, 0)])
        high = math.log(grid[min(place + 1, STEPS - 1)])
    return min(grid, key=loss)


def _nll(rows: _Rows, temperature: float) -> float:
    log_p = (rows.scores / temperature).log_softmax(1)
    return -float((rows.weights * log_p[torch.arange(len(rows.labels)), rows.labels]).sum())


def _calibration_error(rows: _Rows, temperature: float) -> float:
    confidence, found = (rows.scores / temperature).softmax(1).max(1)
    right = (found == rows.labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    differences = torch.zeros(BINS, dtype=torch.float64)
    differences.index_add_(0, bins, rows.weights * (confidence - right))
    return float(differences.abs().sum() / rows.weights.sum())


def _rows(scores: Tensor, labels: Tensor) -> _Rows:
    counts = torch.bincount(labels, minlength=scores.shape[1]).double()
    return _Rows(scores.double(), labels, 1 / counts[labels])


def _among_all(problem: TestScores, gamma: float) -> _Rows:
    scores = torch.cat([problem.seen_scores, problem.unseen_scores]).double() + bias_of(problem, gamma)
    return _rows(scores, torch.cat([problem.seen_labels, problem.unseen_labels]))


def _among_unseen(problem: TestScores) -> _Rows:
    return _rows(problem.conventional_rows, torch.searchsorted(problem.unseen, problem.unseen_labels))


def _open(problem: TestScores, gamma: float) -> list[tuple[_Rows, Tensor]]:
    return _without(_among_all(problem, gamma), problem.unseen)


def _open_unseen(problem: TestScores) -> list[tuple[_Rows, Tensor]]:
    return _without(_among_unseen(problem), torch.arange(len(problem.unseen)))


def _without(rows: _Rows, held_out: Tensor) -> list[tuple[_Rows, Tensor]]:
    """The rows without the columns of each half of the held-out classes, and which images are of a column left."""
    found = []
    for removed in (held_out[::2], held_out[1::2]):
        left = torch.ones(rows.scores.shape[1], dtype=torch.bool)
        left[removed] = False
        if left.any() and len(removed):
            found.append((_Rows(rows.scores[:, left], rows.labels, rows.weights), left[rows.labels]))
    return found
