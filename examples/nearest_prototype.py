"""A method of one's own, in a file outside the package.

    FASTZSL_METHODS=examples/nearest_prototype.py python -m fastzsl.train --method nearest-prototype

Ridge regression from pooled features to class embeddings; the class whose embedding is nearest in angle wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods import ClassSet, Method, Model
from fastzsl.methods.register import register


class PrototypeModel(Model):
    """Predicts a class embedding (B, m) from pooled features (B, d)."""

    weight: Tensor

    def __init__(self, feature_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(feature_dim, embedding_dim))

    def classifier(self, classes: ClassSet):
        prototypes = F.normalize(classes.descriptions, dim=1)
        return lambda features: F.normalize(features @ self.weight, dim=1) @ prototypes.mT


@register
@dataclass(frozen=True)
class NearestPrototype(Method):
    """Ridge regression to the class embeddings, then the nearest one.

    Args:
        ridge: weight of the penalty, a share of the mean variance of the features.
    """

    name: ClassVar[str] = "nearest-prototype"
    label: ClassVar[str] = "Nearest prototype"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"ridge": (0.01, 0.1, 1.0, 10.0)}

    ridge: float = 0.1

    def build(self, feature_dim, embedding_dim, backbone=None) -> PrototypeModel:
        return PrototypeModel(feature_dim, embedding_dim)

    def fit(self, model, problem, context) -> None:
        features = problem.pooled().double()
        targets = F.normalize(problem.seen_descriptions, dim=1)[problem.labels].double()
        gram = features.mT @ features
        gram.diagonal().add_(self.ridge * gram.diagonal().mean())
        model.weight = torch.linalg.solve(gram, features.mT @ targets).float()
