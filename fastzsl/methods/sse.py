"""SSE: images and class embeddings are described as mixtures of the seen classes, and the mixtures are compared.

Zhang and Saligrama, "Zero-shot learning via semantic similarity embedding", ICCV 2015. Written from memory of the
paper, without its code. The objective and the alternation are the paper's; the optimiser is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.lbfgs import minimise_by_lbfgs
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledMethod, ScaledModel, TrainingData
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.simplex import nearest_mixtures
from fastzsl.methods.engines.thresholds import Kind, Thresholds
from fastzsl.methods.engines.whitening import mean_square
from fastzsl.methods.method import ClassSet, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings

W_STEPS, TOLERANCE = 40, 1e-6
V_STEPS, HALVINGS = 5, 12
SMALLEST_FALL = 1e-4
"""Stop alternating when the objective falls by a smaller share than this."""


class SimilarityEmbedding(ScaledModel):
    """w (d,), thresholds v_s (C_s, d), and the seen classes' embeddings.

    Args:
        kind: of the responses.
        gamma: spreads the mixture of a class embedding.
        others: as `ScaledModel`.
    """

    weight: Tensor
    thresholds: Tensor
    seen: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
        kind: Kind,
        gamma: float,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.kind, self.gamma = kind, gamma
        self.register_buffer("weight", torch.zeros(feature_dim))
        self.register_fitted("thresholds", "seen")

    def mixtures(self, embeddings: Tensor) -> Tensor:
        """z (C, C_s) of normalised class embeddings (C, m)."""
        return nearest_mixtures(embeddings, self.seen, self.gamma).to(self.weight)

    def classifier(self, classes: ClassSet) -> Scorer:
        mixtures = self.mixtures(self.describe(classes.descriptions.to(self.weight)))
        responses = Thresholds(self.kind, self.thresholds)
        return lambda x: responses(self.scaling(x.to(mixtures)), self.weight) @ mixtures.mT


@register
@dataclass(frozen=True)
class SSE(ScaledMethod):
    """SSE, from memory. With a threshold v_s for each seen class and one weight w,

        pi_s(x) = w' min(x, v_s)  ("int")  or  w' max(0, x - v_s)  ("relu"),    score = sum_s z_s(a_c) pi_s(x)
        z(a) = argmin gamma / 2 |z|² + 1/2 |a - A' z|²  over z >= 0 with sum 1

    Training minimises, in turn over w and over v, the mean over images i and seen classes c of

        max(0, [c != y] - pi_y + pi_c) + max(0, 1 - a_y'a_c - F(x, y) + F(x, c))

    plus penalty / 2 |w|² plus a small penalty on v. v starts as the class means. "int" is meant for features that are
    not negative.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        kind: "int" or "relu".
        gamma: spreads the mixtures. With 0 the mixture of a seen class is this class alone; larger values help unseen
            classes at the cost of seen ones.
        log_penalty: log10 of the weight on |w|² / 2, in units of the mean squared length of the scaled features.
        threshold_penalty: weight on the mean of |v_s|² / 2, in units of 1 / (mean squared length of the scaled
            features).
        rounds: turns over v and w after the first one over w; with 0, v stays at the class means.
        images_per_class: largest number of training images of a class in the objective; they are drawn by the seed.
    """

    name: ClassVar[str] = "sse"
    label: ClassVar[str] = "SSE"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "kind": ("int", "relu"),
        "gamma": (0.0, 0.001, 0.01, 0.1),
        "log_penalty": (-6.0, -5.0, -4.0, -3.0, -2.0),
        "rounds": (0, 2),
    }
    budget: ClassVar[Mapping[str, Any]] = {"rounds": 0}

    kind: Kind = "int"
    gamma: float = 0.01
    log_penalty: float = -4.0
    threshold_penalty: float = 1e-4
    rounds: int = 0
    images_per_class: int = 5

    def __post_init__(self) -> None:
        check_settings(
            self, positive=["images_per_class"], not_negative=["gamma", "threshold_penalty", "rounds"]
        )

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> SimilarityEmbedding:
        return SimilarityEmbedding(
            feature_dim, embedding_dim, self.feature_norm, self.embedding_normalisation, self.kind, self.gamma
        )

    def fit(self, model: SimilarityEmbedding, problem: Problem, context: Context) -> None:  # type: ignore[override]
        data = model.fit_scales(problem, context)
        model.seen = data.descriptions
        objective = Objective(self, data, model.mixtures(data.descriptions), context.seed)
        counts = torch.bincount(data.labels, minlength=problem.num_classes)
        sums = torch.zeros(problem.num_classes, data.features.shape[1]).to(data.features)
        means = sums.index_add_(0, data.labels, data.features) / counts[:, None]
        weight, thresholds = objective.lower_weight(torch.zeros_like(model.weight), means), means
        value = objective.value(weight, thresholds)
        context.listener(1, self.rounds + 1, {"loss": value})
        for turn in range(self.rounds):
            thresholds = objective.lower_thresholds(weight, thresholds)
            weight = objective.lower_weight(weight, thresholds)
            last, value = value, objective.value(weight, thresholds)
            context.listener(turn + 2, self.rounds + 1, {"loss": value})
            if last - value <= SMALLEST_FALL * last:
                break
        model.weight, model.thresholds = weight, thresholds


class Objective:
    """SSE's objective over a part of the training images.

    Args:
        method: its settings.
        data: training data.
        mixtures: z (C_s, C_s) of the seen classes.
        seed: draws the images.
    """

    def __init__(self, method: SSE, data: TrainingData, mixtures: Tensor, seed: int) -> None:
        chosen = some_of_each_class(data.labels.cpu(), method.images_per_class, seed).to(data.labels.device)
        self.features, self.labels = data.features[chosen], data.labels[chosen]
        self.kind, self.mixtures = method.kind, mixtures
        unit = F.normalize(data.descriptions, dim=1)
        self.margins = 1 - unit @ unit.mT
        self.alike = torch.eye(len(unit)).to(unit)
        size = mean_square(data.features)
        self.penalty, self.threshold_penalty = (
            10.0**method.log_penalty * size,
            method.threshold_penalty / size,
        )

    def slopes(self, responses: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the hinges of images with responses pi (b, C_s), and its derivative by pi."""
        own, scores = labels[:, None], responses @ self.mixtures.mT
        total, gradients = responses.new_zeros(()), []
        for values, margins in ((responses, 1 - self.alike[labels]), (scores, self.margins[labels])):
            short = (margins - values.gather(1, own) + values).scatter_(1, own, 0.0).clamp_min_(0)
            slope = (short > 0).to(short)
            gradients.append(slope.scatter_(1, own, -slope.sum(1, keepdim=True)))
            total = total + short.sum()
        return total, gradients[0] + gradients[1] @ self.mixtures

    def value_and_gradients(
        self, weight: Tensor, thresholds: Tensor, of_thresholds: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The objective and its derivatives by w (d,) and, if asked, by v (C_s, d)."""
        terms = len(self.features) * len(thresholds)
        total, by_weight, by_thresholds = Thresholds(self.kind, thresholds).accumulate(
            self.features, self.labels, weight, self.slopes, of_thresholds
        )
        total = total / terms + 0.5 * self.penalty * weight.square().sum()
        total = total + 0.5 * self.threshold_penalty * thresholds.square().sum(1).mean()
        by_weight = by_weight / terms + self.penalty * weight
        if by_thresholds is not None:
            by_thresholds = by_thresholds / terms + self.threshold_penalty / len(thresholds) * thresholds
        return total, by_weight, by_thresholds

    def value(self, weight: Tensor, thresholds: Tensor) -> float:
        return float(self.value_and_gradients(weight, thresholds)[0])

    def lower_weight(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """A w whose objective is not higher; the objective is convex in w."""

        def loss_and_gradient(at: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return self.value_and_gradients(at[0], thresholds)[:2]

        (found,) = minimise_by_lbfgs([weight], loss_and_gradient, steps=W_STEPS, tolerance=TOLERANCE)
        return found if self.value(found, thresholds) <= self.value(weight, thresholds) else weight

    def lower_thresholds(self, weight: Tensor, thresholds: Tensor) -> Tensor:
        """A v >= 0 whose objective is not higher, from projected subgradient steps; each is halved until this is so."""
        step: float | None = None
        for _ in range(V_STEPS):
            value, _, slope = self.value_and_gradients(weight, thresholds, of_thresholds=True)
            assert slope is not None
            if step is None:  # the first step moves v by its own length
                step = float(thresholds.norm() / slope.norm().clamp_min(1e-30))
            for _ in range(HALVINGS):
                moved = (thresholds - step * slope).clamp_min(0)
                if self.value(weight, moved) < float(value):
                    thresholds = moved
                    break
                step /= 2
            else:
                break
        return thresholds


def some_of_each_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of at most `count` images of each class, drawn by `seed`, ascending."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].sort(stable=True).indices]
    sizes = torch.bincount(labels)
    starts = (sizes.cumsum(0) - sizes)[labels[order]]
    return order[torch.arange(len(labels)) - starts < count].sort().values
