"""Sufficient statistics of the closed forms, in float64, computed once for a whole grid search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.scaled import ScaledModel
from fastzsl.methods.problem import Problem


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (n,), ascending, and eigenvectors (n, n) of a symmetric positive matrix."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Spectrum:
        values, vectors = torch.linalg.eigh(matrix)
        return cls(values.clamp_min(0), vectors)

    @property
    def mean(self) -> float:
        """Mean eigenvalue: the trace over n, a natural unit for a ridge. Above 0 even for a matrix of zeros."""
        return max(float(self.values.mean()), torch.finfo(self.values.dtype).tiny)

    def ridge(self, share: float, right: Tensor) -> Tensor:
        """(matrix + share · mean · I)^-1 right, (n, k) -> (n, k)."""
        scaled = (self.vectors.mT @ right) / (self.values + share * self.mean)[:, None]
        return self.vectors @ scaled

    @cached_property
    def range(self) -> Spectrum:
        """The part with eigenvalues above the rounding error: values (r,), vectors (n, r)."""
        floor = len(self.values) * torch.finfo(self.values.dtype).eps * self.values[-1]
        kept = self.values > floor
        return Spectrum(self.values[kept], self.vectors[:, kept])


@dataclass(frozen=True)
class Statistics:
    """The statistics of the training data that the linear closed forms need.

    Attributes:
        gram: spectrum of X'X (d, d).
        class_sums: X'Y (d, C_s), sums of each class's features.
        counts: (C_s,) images of each class.
        descriptions: A (C_s, m), as the model normalises them.
        embedding_gram: spectrum of A'A (m, m), every class once.
        code_gram: spectrum of S'S = A' diag(counts) A (m, m), every image once.
    """

    gram: Spectrum
    class_sums: Tensor
    counts: Tensor
    descriptions: Tensor
    embedding_gram: Spectrum
    code_gram: Spectrum


def statistics(model: ScaledModel, problem: Problem, context: Context) -> Statistics:
    """Fit the model's scalings and return the statistics of the scaled features and class embeddings."""
    model.fit_scales(problem, context)

    def make() -> Statistics:
        wide = model.scaling(problem.pooled().to(context.device).double())
        labels = problem.labels.to(wide.device)
        sums = torch.zeros(wide.shape[1], problem.num_classes, dtype=torch.float64, device=wide.device)
        sums.index_add_(1, labels, wide.mT)
        counts = torch.bincount(labels, minlength=problem.num_classes).double()
        descriptions = model.describe(problem.seen_descriptions.to(wide))
        return Statistics(
            gram=problem.cached(
                f"gram of {model.scaling.how} features on {context.device}",
                lambda: Spectrum.of(wide.mT @ wide),
            ),
            class_sums=sums,
            counts=counts,
            descriptions=descriptions,
            embedding_gram=Spectrum.of(descriptions.mT @ descriptions),
            code_gram=Spectrum.of(descriptions.mT @ (counts[:, None] * descriptions)),
        )

    return problem.cached(f"statistics of {model.scales} on {context.device}", make)


def gram(model: ScaledModel, problem: Problem, context: Context) -> Spectrum:
    """Spectrum of X'X (d, d) in float64, for features with scalings that are already fitted."""

    def make() -> Spectrum:
        wide = model.scaling(problem.pooled().to(context.device).double())
        return Spectrum.of(wide.mT @ wide)

    return problem.cached(f"gram of {model.scaling.how} features on {context.device}", make)
