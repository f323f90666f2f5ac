"""Relation Network, the zero-shot part: a learned comparison of a feature with an embedded class.

Sung, Yang, Zhang, Xiang, Torr and Hospedales, "Learning to Compare: Relation Network for Few-Shot Learning", CVPR 2018.
Architecture and loss follow the authors' public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.loop import constant, minimise
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.engines.scaled import ScaledModel
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.method import ClassSet, Method, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops.linear import Linear, linear

PAIRS_AT_ONCE = 1 << 24
"""Limit on the entries of the hidden layer (images × classes × units) that scoring computes at a time."""


class RelationModel(ScaledModel):
    """Logits W_2 ReLU(W_1 [g(a); x] + b_1) + b_2 with g(a) = ReLU(V_2 ReLU(V_1 a)).

    W_1 [g; x] = W_g g + W_x x, so B images and C classes cost B + C products instead of B · C.

    Args:
        feature_dim, embedding_dim: d and m; g(a) has the size of a feature.
        class_hidden: size of the class branch's hidden layer.
        hidden: size of the comparison's hidden layer.
        embedding_scale: factor on the class embeddings.
        feature_norm, embedding_normalisation: scalings.
    """

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        *,
        class_hidden: int,
        hidden: int,
        embedding_scale: float,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.embedding_scale = embedding_scale
        self.class_branch = nn.Sequential(
            Linear(embedding_dim, class_hidden), nn.ReLU(), Linear(class_hidden, feature_dim), nn.ReLU()
        )
        self.first = Linear(2 * feature_dim, hidden)
        self.second = nn.Linear(hidden, 1)

    def of_classes(self, descriptions: Tensor) -> Tensor:
        """W_g g(a) + b_1, (C, m) -> (C, hidden)."""
        embedded = self.class_branch(self.embedding_scale * self.describe(descriptions))
        return linear(embedded, self.first.weight[:, : embedded.shape[1]], self.first.bias)

    def of_features(self, scaled: Tensor) -> Tensor:
        """W_x x, (B, d) -> (B, hidden)."""
        return linear(scaled, self.first.weight[:, -scaled.shape[1] :])

    def compare(self, features: Tensor, classes: Tensor) -> Tensor:
        """Logits (B, C) from the two halves (B, hidden) and (C, hidden)."""
        found: Tensor = self.second((features[:, None] + classes).relu())
        return found[..., 0]

    def classifier(self, classes: ClassSet) -> Scorer:
        halves = self.of_classes(classes.descriptions)

        def score(features: Tensor) -> Tensor:
            own = self.of_features(self.scaling(features.to(halves)))
            some = max(1, PAIRS_AT_ONCE // max(1, own.numel()))
            return torch.cat([self.compare(own, part) for part in halves.split(some)], 1)

        return score


class RelationObjective(nn.Module):
    """Mean square of sigmoid(logit) - [same class] over the images and the classes present in the batch.

    Args:
        model: compares.
        descriptions: (C_s, m).
    """

    def __init__(self, model: RelationModel, descriptions: Tensor) -> None:
        super().__init__()
        self.model, self.descriptions = model, descriptions

    def forward(self, inputs: Tensor, labels: Tensor, part: BatchPart) -> dict[str, Tensor]:
        present, place = labels.unique(return_inverse=True)
        found = self.model.compare(
            self.model.of_features(inputs), self.model.of_classes(self.descriptions[present])
        ).sigmoid()
        same = F.one_hot(place, len(present)).to(found)
        return {"loss": part.weight * F.mse_loss(found, same)}


def equal_pairs(labels: Tensor, batch_size: int) -> Tensor:
    """The expected share of pairs of the same class, among the images of a batch and the classes present in it.

    It is 1 over the expected number of classes in a batch; strictly between 0 and 1.
    """
    shares = labels.bincount().double() / len(labels)
    present = (1 - (1 - shares) ** batch_size).sum()
    return present.clamp_min(1.01).reciprocal()


@register
@dataclass(frozen=True)
class RelationNet(Method):
    """Relation Network. Compares a feature x with an embedded class g(a):

        r(x, a) = sigmoid(W_2 ReLU(W_1 [g(a); x] + b_1) + b_2),     g(a) = ReLU(V_2 ReLU(V_1 a + c_1) + c_2)

    and minimises the mean of (r - [same class])² over the images of a batch and the classes present in it. Scores are
    the logits before the sigmoid, because the sigmoid rounds large logits to equal scores. The authors halve the
    learning rate after many thousand steps; here it is constant, and the number of epochs is chosen.

    b_2 starts at the logit of the share of equal pairs in a batch, which is small. If r starts near 1/2, as with the
    authors' initial weights, the first steps lower all outputs at once through every weight, and the training can stay
    where all outputs are that share.

    Args:
        feature_norm: scaling of the features; the authors take them as they are.
        embedding_normalisation: of the class embeddings.
        embedding_scale: factor on the normalised class embeddings. The authors' have entries up to 100. If it is small,
            g(a) is mostly the biases, and differs little between classes.
        class_hidden: hidden units of g; 1024 (AwA) and 1200 (CUB) are published.
        hidden: hidden units of the comparison; 400 (AwA) and 1200 (CUB) are published.
        epochs: passes over the training images; the authors take 200 000 to 500 000 batches.
        batch_size: images in a step.
        lr: of Adam; 1e-5 is published.
        weight_decay: L2 penalty in Adam, on g only.
    """

    name: ClassVar[str] = "relation-net"
    version: ClassVar[int] = 3
    label: ClassVar[str] = "Relation Net"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "feature_norm": ("none", "standard", "minmax"),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "embedding_scale": (10.0, 100.0, 400.0),
        "lr": (3e-5, 1e-4, 3e-4),
        "epochs": (12, 24, 60),
    }
    budget: ClassVar[Mapping[str, Any]] = {"hidden": 400}

    feature_norm: FeatureNorm = "standard"
    embedding_normalisation: Normalisation = "centre"
    embedding_scale: float = 100.0
    class_hidden: int = 1200
    hidden: int = 1200
    epochs: int = 24
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("embedding_scale", "class_hidden", "hidden", "epochs", "batch_size", "lr"),
            not_negative=("weight_decay",),
            largest={"class_hidden": 1_000_000, "hidden": 1_000_000},
        )

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> RelationModel:
        return RelationModel(
            feature_dim, embedding_dim, class_hidden=self.class_hidden, hidden=self.hidden,
            embedding_scale=self.embedding_scale, feature_norm=self.feature_norm,
            embedding_normalisation=self.embedding_normalisation,
        )  # fmt: skip

    def fit(self, model: RelationModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        features, _, _ = model.fit_scales(problem, context)
        objective = RelationObjective(model, problem.seen_descriptions.to(context.device))
        with torch.no_grad():
            model.second.bias.fill_(torch.logit(equal_pairs(problem.labels, self.batch_size)))
        compared = [*model.first.parameters(), *model.second.parameters()]
        groups = [
            {"params": compared, "weight_decay": 0.0},
            {"params": list(model.class_branch.parameters()), "weight_decay": self.weight_decay},
        ]
        minimise(
            model, objective, torch.optim.Adam(groups, self.lr, fused=True),
            lambda batch, draw: features[batch.to(features.device)], problem.labels, context,
            epochs=self.epochs, batch_size=self.batch_size, schedule=constant,
        )  # fmt: skip
