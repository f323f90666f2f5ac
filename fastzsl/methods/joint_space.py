"""Nearest class in a joint space of images and texts, such as CLIP's. Nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from fastzsl.errors import UserError
from fastzsl.methods.context import Context
from fastzsl.methods.method import ClassSet, Method, Model, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register


class JointSpaceModel(Model):
    """Cosines between image embeddings (B, d) and class embeddings (C, d). It has no parameters."""

    def classifier(self, classes: ClassSet) -> Scorer:
        texts = F.normalize(classes.descriptions.float(), dim=1)
        return lambda features: F.normalize(features.to(texts), dim=1) @ texts.mT


@register
@dataclass(frozen=True)
class JointSpace(Method):
    """Nearest class in a joint image-text space. Scores are cos(x, k_c).

    The features are image embeddings, and the class embeddings are text embeddings, of one model such as CLIP. They
    have the same size. There is no training and no setting. Regions are averaged, so a feature file with one region
    for each image is used unchanged.
    """

    name: ClassVar[str] = "joint-space"
    label: ClassVar[str] = "Joint image-text space"

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> JointSpaceModel:
        """Raises `UserError` where image and text embeddings differ in size."""
        if feature_dim != embedding_dim:
            raise UserError(
                f"--method joint-space: features have d={feature_dim} but class embeddings m={embedding_dim}; "
                "wanted image and text embeddings of one model, of equal size"
            )
        return JointSpaceModel()

    def fit(self, model: Model, problem: Problem, context: Context) -> None:
        """Nothing to do: both embeddings are given."""
