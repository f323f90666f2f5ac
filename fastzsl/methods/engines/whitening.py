"""Features in which a regularised linear classifier needs few steps, for any spectrum of the images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.scaled import ScaledModel
from fastzsl.methods.engines.statistics import gram
from fastzsl.methods.problem import Problem


class Whitened(NamedTuple):
    """Z = X P D with X'X = P diag(values) P' and D = (curvature · values / N + penalty)^(-1/2).

    A classifier U (C, d) of Z scores as W = U D P' does of X, and its penalty is penalty / 2 · |U D|²: one weight for
    each feature. In these features the second derivative of the loss is near the identity where W is small.

    Attributes:
        features: Z (N, d).
        penalties: (d,) penalty · D².
        back: D P' (d, d).
    """

    features: Tensor
    penalties: Tensor
    back: Tensor


def whitened(
    model: ScaledModel, problem: Problem, context: Context, penalty: float, curvature: float
) -> Whitened:
    """Whitened training features, for scalings that are already fitted; all trainings share the rotation.

    Args:
        penalty: weight of |W|² / 2 beside the mean loss of an image, above 0.
        curvature: second derivative of an image's loss by a score.
    """
    spectrum = gram(model, problem, context)

    def rotate() -> Tensor:
        features = model.scaling(problem.pooled().to(context.device))
        return features @ spectrum.vectors.to(features)

    name = f"rotated {model.scaling.how} features on {context.device}"
    rotated = problem.cached(name, rotate)
    factor = (curvature / len(problem) * spectrum.values + penalty).rsqrt()
    return Whitened(
        rotated * factor.to(rotated),
        (penalty * factor.square()).to(rotated),
        (factor[:, None] * spectrum.vectors.mT).to(rotated),
    )


def mean_square(features: Tensor) -> float:
    """Mean squared length of the features (N, d), the unit of penalties; above 0."""
    return max(float(features.square().sum(1).mean()), torch.finfo(features.dtype).tiny)
