"""ConSE: an image's embedding is the mean of the seen classes' embeddings, weighted by their probabilities.

Norouzi, Mikolov, Bengio, Singer, Shlens, Frome, Corrado and Dean, "Zero-shot learning by convex combination of
semantic embeddings", ICLR 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledMethod, ScaledModel
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.softmax import LinearSoftmax, fit_softmax
from fastzsl.methods.engines.whitening import mean_square, whitened
from fastzsl.methods.method import ClassSet, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings

STEPS = 100
"""L-BFGS steps in whitened features; more steps change the loss only in its third digit."""


class ConvexCombination(ScaledModel):
    """A softmax over the seen classes, and their embeddings.

    Args:
        top: T, the number of most probable classes that are used; 0 for all.
        temperature: divides the logits.
        others: as `ScaledModel`.
    """

    weight: Tensor
    bias: Tensor
    seen: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
        top: int,
        temperature: float,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.top, self.temperature = top, temperature
        self.register_fitted("weight", "bias", "seen")

    def embed(self, features: Tensor) -> Tensor:
        """f(x) (B, m) of features (B, d), in the convex hull of the seen classes' embeddings."""
        logits = LinearSoftmax(self.weight, self.bias).logits(self.scaling(features.to(self.weight)))
        logits = logits / self.temperature
        if self.top and self.top < logits.shape[1]:
            kept, places = logits.topk(self.top, dim=1)
            # A softmax over the T classes is p_t divided by their sum.
            logits = logits.new_full(logits.shape, -float("inf")).scatter(1, places, kept)
        return logits.softmax(1) @ self.seen

    def classifier(self, classes: ClassSet) -> Scorer:
        embeddings = F.normalize(self.describe(classes.descriptions.to(self.weight)), dim=1)
        return lambda features: F.normalize(self.embed(features), dim=1) @ embeddings.mT


@register
@dataclass(frozen=True)
class ConSE(ScaledMethod):
    """ConSE. With p(s | x) a softmax over the seen classes and s_1 ... s_T the T most probable ones,

        f(x) = sum_t p(s_t | x) a_(s_t) / sum_t p(s_t | x),    score = cosine of f(x) and a_c

    The softmax is a logistic regression with an L2 penalty; the paper uses the softmax of the network that makes the
    features. Nothing else is trained.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        log_penalty: log10 of the weight on |W|² / 2 beside the mean cross-entropy, in units of the mean squared length
            of the scaled features.
        top: T; 0 for all seen classes. The paper prefers 10.
        temperature: divides the logits of the softmax; 1 in the paper.
    """

    name: ClassVar[str] = "conse"
    label: ClassVar[str] = "ConSE"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "feature_norm": ("unit", "standard"),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "log_penalty": (-5.0, -4.0, -3.0),
        "top": (1, 3, 5, 10, 0),
        "temperature": (0.5, 1.0, 2.0),
    }
    full_grid: ClassVar[bool] = True

    log_penalty: float = -4.0
    top: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, positive=["temperature"], not_negative=["top"])

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> ConvexCombination:
        return ConvexCombination(
            feature_dim,
            embedding_dim,
            self.feature_norm,
            self.embedding_normalisation,
            self.top,
            self.temperature,
        )

    def fit(self, model: ConvexCombination, problem: Problem, context: Context) -> None:  # type: ignore[override]
        data = model.fit_scales(problem, context)

        def train() -> LinearSoftmax:
            classes = problem.num_classes
            penalty = 10.0**self.log_penalty * mean_square(data.features)
            white = whitened(model, problem, context, penalty, curvature=1 / classes)
            found = fit_softmax(white.features, data.labels, classes, white.penalties, steps=STEPS)
            return LinearSoftmax(found.weight @ white.back, found.bias)

        name = f"softmax, {model.scaling.how} features, penalty {self.log_penalty} on {context.device}"
        found = problem.cached(name, train)
        model.weight, model.bias, model.seen = found.weight, found.bias, data.descriptions
