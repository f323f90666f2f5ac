"""F(x, c) = x' W a_c: the model of ESZSL, ALE, SJE and DeViSE."""

from __future__ import annotations

import torch
from torch import Tensor

from fastzsl.methods.engines.scaling import FeatureNorm, Scaling, unit_rows
from fastzsl.methods.method import ClassSet, Model, Scorer


class BilinearModel(Model):
    """Scores x' W a of scaled pooled features x (B, d) and unit-length class embeddings a (C, m).

    Args:
        feature_dim: d.
        embedding_dim: m.
        feature_norm: scaling of the features.
    """

    weight: Tensor

    def __init__(self, feature_dim: int, embedding_dim: int, feature_norm: FeatureNorm) -> None:
        super().__init__()
        self.scaling = Scaling(feature_norm, feature_dim)
        self.register_buffer("weight", torch.zeros(feature_dim, embedding_dim))

    def classifier(self, classes: ClassSet) -> Scorer:
        prototypes = self.weight @ unit_rows(classes.descriptions).mT.to(self.weight)
        return lambda features: self.scaling(features.to(prototypes)) @ prototypes
