"""ESZSL: ridge regression of the label matrix through a bilinear form, in closed form.

Romera-Paredes and Torr, "An embarrassingly simple approach to zero-shot learning", ICML 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastzsl.methods.context import Context
from fastzsl.methods.engines.bilinear import BilinearModel
from fastzsl.methods.engines.scaled import ScaledMethod
from fastzsl.methods.engines.statistics import statistics
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register


@register
@dataclass(frozen=True)
class ESZSL(ScaledMethod):
    """ESZSL. Minimises |X V A' - Y|² + gamma |V A'|² + lambda |X V|² + gamma lambda |V|² over V (d, m):

        V = (X'X + gamma I)^-1 X'Y A (A'A + lambda I)^-1,    score = x' V a

    with features X (N, d), labels Y (N, C_s) in {0, 1} and unit-length class embeddings A (C_s, m).

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        log_gamma: log10 of gamma as a share of trace(X'X) / d, the weight on classes' classifiers.
        log_lambda: log10 of lambda as a share of trace(A'A) / m, the weight on images' embeddings.
    """

    name: ClassVar[str] = "eszsl"
    label: ClassVar[str] = "ESZSL"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "feature_norm": ("unit", "standard"),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "log_gamma": (-2.0, -1.0, 0.0, 1.0, 2.0),
        "log_lambda": (-2.0, -1.0, 0.0, 1.0, 2.0),
    }
    full_grid: ClassVar[bool] = True

    log_gamma: float = 0.5
    log_lambda: float = 1.0

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> BilinearModel:
        return BilinearModel(feature_dim, embedding_dim, self.feature_norm, self.embedding_normalisation)

    def fit(self, model: BilinearModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        stats = statistics(model, problem, context)
        left = stats.gram.ridge(10.0**self.log_gamma, stats.class_sums)
        right = stats.embedding_gram.ridge(10.0**self.log_lambda, stats.descriptions.mT)
        model.weight = (left @ right.mT).to(model.weight)
