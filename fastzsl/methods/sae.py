"""SAE: a linear autoencoder whose code is the class embedding, in closed form.

Kodirov, Xiang and Gong, "Semantic autoencoder for zero-shot learning", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.scaled import ScaledMethod
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.statistics import Statistics, statistics
from fastzsl.methods.engines.tied import Direction, TiedModel, solve_sylvester
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register


@register
@dataclass(frozen=True)
class SAE(ScaledMethod):
    """SAE. Minimises |X - S W|² + lambda |X W' - S|² over W (m, d): the solution of

        S'S W + lambda W X'X = (1 + lambda) S'X

    with features X (N, d) and S (N, m), the class embedding of every image.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        log_lambda: log10 of lambda in units of (trace(S'S) / m) / (trace(X'X) / d).
        direction: "to_embedding" compares W x with a (F->S), "to_feature" compares x with W' a (S->F); by cosine.
        row_normalise_w: give each row of W unit length before scoring, so that all attributes have the same weight.
            The authors' demo does this; the paper's equations do not.
    """

    name: ClassVar[str] = "sae"
    label: ClassVar[str] = "SAE"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "feature_norm": ("unit", "standard"),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "direction": ("to_embedding", "to_feature"),
        "log_lambda": (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0),
    }
    full_grid: ClassVar[bool] = True

    feature_norm: FeatureNorm = "standard"
    log_lambda: float = -1.0
    direction: Direction = "to_feature"
    row_normalise_w: bool = False

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> TiedModel:
        return TiedModel(
            feature_dim, embedding_dim, self.feature_norm, self.embedding_normalisation, self.direction
        )

    def fit(self, model: TiedModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        stats = statistics(model, problem, context)
        name = f"SAE's target, {model.scales} on {context.device}"
        weight = self.solve(stats, problem.cached(name, lambda: rotated_target(stats)))
        if self.row_normalise_w:
            weight = F.normalize(weight, dim=1)
        model.weight = weight.to(model.weight)

    def solve(self, stats: Statistics, target: Tensor) -> Tensor:
        """W (m, d) float64; target: of `rotated_target`."""
        left, right = stats.code_gram.range, stats.gram.range
        share = self.scaled_lambda(stats)
        return left.vectors @ (solve_sylvester(left, right, share, (1 + share) * target) @ right.vectors.mT)

    def scaled_lambda(self, stats: Statistics) -> float:
        """lambda in the units of the equation."""
        return 10.0**self.log_lambda * stats.code_gram.mean / stats.gram.mean


def rotated_target(stats: Statistics) -> Tensor:
    """S'X in the eigenvectors of S'S and of X'X, (rank S, rank X)."""
    left, right = stats.code_gram.range, stats.gram.range
    return (left.vectors.mT @ stats.descriptions.mT) @ (stats.class_sums.mT @ right.vectors)
