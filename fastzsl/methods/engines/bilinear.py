"""F(x, c) = x' W a_c: the model of ESZSL, ALE, SJE and DeViSE."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledModel
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.method import ClassSet, Scorer

Similarity = Literal["dot", "cosine"]
SHORTEST = 1e-12
"""Lengths are at least this when vectors are normalised, as in `F.normalize`."""


class BilinearModel(ScaledModel):
    """Scores x' W a of scaled pooled features x (B, d) and class embeddings a (C, m).

    With class embeddings of unit length the cosine of W' x and a gives the same order of classes as the dot product. It
    divides all scores of an image by one number, which changes the calibration across images.

    Args:
        similarity: x' W a, or the cosine of W' x and a.
        others: as `ScaledModel`.
    """

    weight: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation = "unit",
        similarity: Similarity = "dot",
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.similarity = similarity
        self.register_buffer("weight", torch.zeros(feature_dim, embedding_dim))

    def classifier(self, classes: ClassSet) -> Scorer:
        embeddings = self.describe(classes.descriptions.to(self.weight))
        if self.similarity == "cosine":
            embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
        prototypes = self.weight @ embeddings.mT

        def score(features: Tensor) -> Tensor:
            scaled = self.scaling(features.to(prototypes))
            scores = scaled @ prototypes
            if self.similarity == "dot":
                return scores
            return scores / (scaled @ self.weight).norm(dim=1, keepdim=True).clamp_min(SHORTEST)

        return score
