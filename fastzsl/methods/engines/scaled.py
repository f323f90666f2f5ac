"""The base of methods on pooled features, with scalings of features and class embeddings fitted in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.descriptions import Descriptions
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaling import FeatureNorm, Scaling
from fastzsl.methods.method import Method, Model
from fastzsl.methods.problem import Problem
from fastzsl.methods.settings import check_settings


class TrainingData(NamedTuple):
    """Scaled training data on the context's device.

    Attributes:
        features: X (N, d) float32.
        labels: y (N,) int64.
        descriptions: A (C_s, m) float32.
    """

    features: Tensor
    labels: Tensor
    descriptions: Tensor


class ScaledModel(Model):
    """A model that reads scaled pooled features (B, d) and normalised class embeddings (C, m).

    Args:
        feature_dim, embedding_dim: d and m.
        feature_norm: scaling of the features.
        embedding_normalisation: of the class embeddings.
    """

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.scaling = Scaling(feature_norm, feature_dim)
        self.describe = Descriptions(embedding_normalisation, embedding_dim)

    @property
    def scales(self) -> str:
        """The scalings' names, as a key for results that the trainings of a search share."""
        return f"{self.scaling.how} features, {self.describe.how} descriptions"

    def fit_scales(self, problem: Problem, context: Context) -> TrainingData:
        """Fit both scalings on the training data and return the scaled data."""
        self.to(context.device)
        return TrainingData(
            self.scaling.fit(problem.pooled().to(context.device)),
            problem.labels.to(context.device),
            self.describe.fit(problem.seen_descriptions.to(context.device)),
        )


@dataclass(frozen=True)
class ScaledMethod(Method):
    """Settings that all methods on scaled pooled features share; their own docstrings explain them.

    Args:
        feature_norm: scaling of the features.
        embedding_normalisation: of the class embeddings.
    """

    feature_norm: FeatureNorm = "unit"
    embedding_normalisation: Normalisation = "centre"

    def __post_init__(self) -> None:
        check_settings(self)
