"""A linear autoencoder whose decoder is the transposed encoder: the model of SAE and LESAE, and their equation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledModel
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.statistics import Spectrum
from fastzsl.methods.method import ClassSet, Scorer

Direction = Literal["to_embedding", "to_feature"]
"""
| choice | score of class c |
|---|---|
| to_embedding (F->S) | cosine of W x and a_c |
| to_feature (S->F) | cosine of x and W' a_c |
"""


class TiedModel(ScaledModel):
    """W (m, d) maps features to class embeddings, and W' maps them back.

    Args:
        direction: where images and classes are compared.
        others: as `ScaledModel`.
    """

    weight: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
        direction: Direction,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.direction = direction
        self.register_buffer("weight", torch.zeros(embedding_dim, feature_dim))

    def classifier(self, classes: ClassSet) -> Scorer:
        embeddings = self.describe(classes.descriptions.to(self.weight))
        if self.direction == "to_feature":
            prototypes = F.normalize(embeddings @ self.weight, dim=1)
            return lambda features: F.normalize(self.scaling(features.to(prototypes)), dim=1) @ prototypes.mT
        embeddings = F.normalize(embeddings, dim=1)
        return lambda features: (
            F.normalize(self.scaling(features.to(embeddings)) @ self.weight.mT, dim=1) @ embeddings.mT
        )


def solve_sylvester(left: Spectrum, right: Spectrum, weight: float, target: Tensor) -> Tensor:
    """W of L W + weight · W R = T with L (m, m) and R (d, d) given by the parts of their spectra that are not zero.

    In the eigenvectors of L and R the equation is one division for each entry, so no system is solved for any `weight`.
    T is zero outside the ranges of L and R, and so is W, the smallest solution.

    Args:
        left: range of L; right: range of R.
        weight: above 0.
        target: Q' T P (rank L, rank R), T in the eigenvectors Q of L and P of R.

    Returns:
        Q' W P, in the same eigenvectors.
    """
    return target / (left.values[:, None] + weight * right.values)
