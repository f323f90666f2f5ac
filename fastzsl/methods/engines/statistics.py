"""Sufficient statistics of the closed forms, in float64, computed once for a whole grid search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.scaling import Scaling, unit_rows
from fastzsl.methods.problem import Problem


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (n,) and eigenvectors (n, n) of a symmetric positive matrix."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Spectrum:
        values, vectors = torch.linalg.eigh(matrix)
        return cls(values.clamp_min(0), vectors)

    @property
    def mean(self) -> float:
        """Mean eigenvalue: the trace over n, a natural unit for a ridge."""
        return float(self.values.mean())

    def ridge(self, share: float, right: Tensor) -> Tensor:
        """(matrix + share · mean · I)^-1 right, (n, k) -> (n, k)."""
        scaled = (self.vectors.mT @ right) / (self.values + share * self.mean)[:, None]
        return self.vectors @ scaled


@dataclass(frozen=True)
class Statistics:
    """What the linear closed forms need of the training data.

    Attributes:
        gram: spectrum of X'X (d, d).
        class_sums: X'Y (d, C_s), sums of each class's features.
        counts: (C_s,) images of each class.
        descriptions: A (C_s, m), unit rows, float64.
        embedding_gram: spectrum of A'A (m, m).
    """

    gram: Spectrum
    class_sums: Tensor
    counts: Tensor
    descriptions: Tensor
    embedding_gram: Spectrum


def statistics(scaling: Scaling, problem: Problem, context: Context) -> Statistics:
    """Fit `scaling` on the training images and return the statistics of the scaled features."""
    scaling.to(context.device)
    features = problem.pooled().to(context.device)
    scaling.fit(features)

    def make() -> Statistics:
        labels = problem.labels.to(context.device)
        wide = scaling(features).double()
        sums = torch.zeros(wide.shape[1], problem.num_classes, dtype=torch.float64, device=wide.device)
        sums.index_add_(1, labels, wide.mT)
        descriptions = unit_rows(problem.seen_descriptions.to(context.device).double())
        return Statistics(
            Spectrum.of(wide.mT @ wide),
            sums,
            torch.bincount(labels, minlength=problem.num_classes).double(),
            descriptions,
            Spectrum.of(descriptions.mT @ descriptions),
        )

    return problem.cached(f"statistics {scaling.how} {context.device}", make)
