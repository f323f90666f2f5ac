"""DeViSE: a linear map into the space of class embeddings, trained with a hinge for every wrong class.

Frome, Corrado, Shlens, Bengio, Dean, Ranzato and Mikolov, "DeViSE: a deep visual-semantic embedding model", NeurIPS
2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fastzsl.methods.engines.ranking import RankingMethod
from fastzsl.methods.register import register


@register
@dataclass(frozen=True)
class DeViSE(RankingMethod):
    """DeViSE. Score x' W a_c; the loss of an image is

        1 / (C_s - 1) sum_{c != y} max(0, margin + x' W (a_c - a_y))

    Training is stochastic gradient descent on the mean over a batch with a constant learning rate; the number of epochs
    is the only regulariser. The paper ends the sum after the first violated class in a random order, and also trains
    the network that makes the features. Here the sum is complete and the features are fixed, as in later comparisons.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        lr: learning rate, in units of 1 / (mean squared length of the scaled features).
        epochs, batch_size: passes over the training images, images in a step.
        margin: 0.1 in the paper, 1 in later comparisons. If init_scale is 0, only lr / margin matters.
        init_scale: W starts with normal entries of deviation init_scale / sqrt(d). With 0, W starts at zero and has no
            noise in directions that no training class has.
        similarity: score by x' W a or by the cosine of W' x and a.
    """

    name: ClassVar[str] = "devise"
    label: ClassVar[str] = "DeViSE"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {**RankingMethod.grid, "lr": (30.0, 100.0, 300.0)}

    lr: float = 100.0

    def loss(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        others = margins.shape[1] - 1
        return margins.clamp_min(0).sum(1) / others, (margins > 0).to(margins) / others
