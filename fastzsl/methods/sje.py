"""SJE: a bilinear structured support vector machine, whose loss takes only the worst class.

Akata, Reed, Walter, Lee and Schiele, "Evaluation of output embeddings for fine-grained image classification", CVPR
2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastzsl.methods.engines.ranking import RankingMethod
from fastzsl.methods.register import register


@register
@dataclass(frozen=True)
class SJE(RankingMethod):
    """SJE. Score x' W a_c; the loss of an image is

        max(0, max_{c != y} margin + x' W (a_c - a_y))

    Training is stochastic gradient descent on the mean over a batch with a constant learning rate; the number of epochs
    is the only regulariser. The paper weights several class embeddings; this is the case of a single one.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        lr: learning rate, in units of 1 / (mean squared length of the scaled features).
        epochs, batch_size: passes over the training images, images in a step.
        margin: 1 in the paper. If init_scale is 0, only lr / margin matters.
        init_scale: W starts with normal entries of deviation init_scale / sqrt(d). With 0, W starts at zero and has no
            noise in directions that no training class has.
        similarity: score by x' W a or by the cosine of W' x and a.
    """

    name: ClassVar[str] = "sje"
    label: ClassVar[str] = "SJE"

    def loss(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        worst, place = margins.max(1, keepdim=True)
        slopes = torch.zeros_like(margins).scatter_(1, place, (worst > 0).to(margins))
        return worst.clamp_min(0).squeeze(1), slopes
