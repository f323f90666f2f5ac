"""DCN: features are mapped to the class embeddings; a second term makes the model confident among unseen classes.

Liu, Long, Wang and Jordan, "Generalized Zero-Shot Learning with Deep Calibration Network", NeurIPS 2018. Architecture
and settings follow the authors' public code, in which the class branch is fixed and the features are frozen. Dropout is
off when scores are computed, which it is not in that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.loop import minimise
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.engines.scaled import ScaledModel, TrainingData
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.method import ClassSet, Method, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops.linear import Linear

LENGTH = 10.0
"""E = 10 tanh(a)."""


class DCNModel(ScaledModel):
    """Scores h(x)' E_c with h(x) = tanh(W_2 Dropout(ReLU(W_1 x + b_1)) + b_2) and E = 10 tanh(a).

    Args:
        feature_dim, embedding_dim: d and m.
        hidden: size of the hidden layer.
        dropout: share of hidden units dropped in training.
        feature_norm: scaling of the features, which are then divided by the largest number of the training.
        embedding_normalisation: of the class embeddings.
    """

    largest: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        *,
        hidden: int,
        dropout: float,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.first, self.second = Linear(feature_dim, hidden), Linear(hidden, embedding_dim)
        self.dropout = dropout
        self.register_buffer("largest", torch.ones(()))
        for layer, deviation in ((self.first, 0.01), (self.second, 0.03)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def fit_scales(self, problem: Problem, context: Context) -> TrainingData:
        """As `ScaledModel`, with the features as `embed` takes them: divided by the largest number."""
        data = super().fit_scales(problem, context)
        self.largest = data.features.abs().max().clamp_min(1e-30).to(self.largest)
        return data._replace(features=data.features / self.largest)

    def embed(self, scaled: Tensor) -> Tensor:
        """h (B, m) of scaled features (B, d)."""
        hidden = F.dropout(self.first(scaled).relu(), self.dropout, self.training)
        return torch.tanh(self.second(hidden))

    def targets(self, descriptions: Tensor) -> Tensor:
        """E (C, m)."""
        return LENGTH * torch.tanh(self.describe(descriptions))

    def classifier(self, classes: ClassSet) -> Scorer:
        targets = self.targets(classes.descriptions)
        return lambda features: self.embed(self.scaling(features.to(targets)) / self.largest) @ targets.mT


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of softmax(logits), (B, C) -> ()."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


class DCNObjective(nn.Module):
    """cross-entropy(alpha f_seen, y) + weight · mean entropy(softmax(beta f_unseen)).

    Args:
        model: maps the features.
        seen, unseen: E of the seen (C_s, m) and the unseen classes (C_u, m).
        alpha, beta: inverse temperatures.
        weight: of the entropy; 0 does not compute it.
    """

    def __init__(
        self, model: DCNModel, seen: Tensor, unseen: Tensor | None, alpha: float, beta: float, weight: float
    ) -> None:
        super().__init__()
        self.model, self.seen, self.unseen = model, seen, unseen
        self.alpha, self.beta, self.weight = alpha, beta, weight

    def forward(self, inputs: Tensor, labels: Tensor, part: BatchPart) -> dict[str, Tensor]:
        found = self.model.embed(inputs)
        terms = {"classification": F.cross_entropy(self.alpha * (found @ self.seen.mT), labels)}
        total = terms["classification"]
        if self.unseen is not None:
            terms["entropy"] = entropy(self.beta * (found @ self.unseen.mT))
            total = total + self.weight * terms["entropy"]
        return {"loss": part.weight * total, **terms}


def decay(step: int, total: int) -> float:
    """(1 + step / 100)^-0.75, the authors' schedule."""
    return float((1 + 0.01 * step) ** -0.75)


@register
@dataclass(frozen=True)
class DCN(Method):
    """DCN. Maps features to the class embeddings, f_c(x) = h(x)' 10 tanh(a_c), and minimises

        cross-entropy(alpha f_seen, y) + entropy_weight · mean entropy(softmax(beta f_unseen))

    The second term reads the descriptions of the unseen classes during training, and makes the model confident in one
    of them. It has no effect on a class that is added later. Scores are the logits f, because their exponentials
    overflow.

    Args:
        feature_norm: scaling of the features; they are then divided by their largest absolute value.
        embedding_normalisation: of the class embeddings, before the tanh.
        hidden: size of the hidden layer.
        dropout: share of the hidden units dropped in training.
        alpha: inverse temperature over the seen classes.
        beta: inverse temperature over the unseen classes.
        entropy_weight: weight of the entropy; with 0 the unseen classes' descriptions are not read.
        epochs: passes over the training images; the authors take 100 000 steps.
        batch_size: images in a step.
        lr: of Adam, at the first step; at step t it is lr · (1 + t / 100)^-0.75.
    """

    name: ClassVar[str] = "dcn"
    label: ClassVar[str] = "DCN"
    version: ClassVar[int] = 2
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "lr": (1e-4, 5e-4, 2e-3),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "alpha": (1.0, 3.0, 10.0),
        "beta": (0.03, 0.3, 1.0),
        "entropy_weight": (0.0, 0.1, 1.0),
        "epochs": (20, 60),
    }
    budget: ClassVar[Mapping[str, Any]] = {"epochs": 20}

    feature_norm: FeatureNorm = "standard"
    embedding_normalisation: Normalisation = "centre"
    hidden: int = 1024
    dropout: float = 0.5
    alpha: float = 3.0
    beta: float = 0.1
    entropy_weight: float = 0.1
    epochs: int = 20
    batch_size: int = 64
    lr: float = 2e-3

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("hidden", "alpha", "beta", "epochs", "batch_size", "lr"),
            not_negative=("entropy_weight",),
            shares=("dropout",),
            largest={"hidden": 1_000_000},
        )

    @property
    def descriptions(self) -> Literal["seen", "all"]:
        return "all" if self.entropy_weight else "seen"

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> DCNModel:
        return DCNModel(
            feature_dim, embedding_dim, hidden=self.hidden, dropout=self.dropout,
            feature_norm=self.feature_norm, embedding_normalisation=self.embedding_normalisation,
        )  # fmt: skip

    def fit(self, model: DCNModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        features, _, _ = model.fit_scales(problem, context)
        seen, unseen = model.targets(problem.seen_descriptions.to(context.device)), None
        if self.entropy_weight:
            unseen = model.targets(problem.unseen_descriptions.to(context.device))
        objective = DCNObjective(model, seen, unseen, self.alpha, self.beta, self.entropy_weight)
        optimizer = torch.optim.Adam(model.parameters(), self.lr, fused=True)
        minimise(
            model, objective, optimizer, lambda batch, draw: features[batch.to(features.device)],
            problem.labels, context,
            epochs=self.epochs, batch_size=self.batch_size, schedule=decay,
        )  # fmt: skip
