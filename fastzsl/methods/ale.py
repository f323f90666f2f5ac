"""ALE: a bilinear ranking of classes, in which violated margins are weighted by the rank of the image's class.

Akata, Perronnin, Harchaoui and Schmid, "Label-embedding for image classification", TPAMI 2016 (CVPR 2013).
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
class ALE(RankingMethod):
    """ALE. Score x' W a_c; with s_c = margin + x' W (a_c - a_y), r the number of wrong classes whose s_c is above 0
    and L_r = 1 + 1/2 + ... + 1/r, the loss of an image is

        (L_r / r) sum_{c != y} max(0, s_c)

    where L_r / r is a constant in the gradient. Training is stochastic gradient descent on the mean over a batch with
    a constant learning rate; the number of epochs is the only regulariser. Ranks are exact; the paper estimates them
    from randomly drawn classes.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        lr: learning rate, in units of 1 / (mean squared length of the scaled features).
        epochs, batch_size: passes over the training images, images in a step.
        margin: 1 in the paper. If init_scale is 0, only lr / margin matters.
        init_scale: W starts with normal entries of deviation init_scale / sqrt(d); 1 in the paper. With 0, W starts at
            zero and has no noise in directions that no training class has.
        similarity: score by x' W a or by the cosine of W' x and a.
    """

    name: ClassVar[str] = "ale"
    label: ClassVar[str] = "ALE"

    def loss(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        violated = (margins > 0).to(margins)
        rank = violated.sum(1, keepdim=True)
        weight = harmonic_sums(margins)[rank.long()] / rank.clamp_min(1)
        return (weight * margins.clamp_min(0)).sum(1), weight * violated


def harmonic_sums(margins: Tensor) -> Tensor:
    """L_r for r = 0 to C_s: L_0 = 0, L_r = L_(r-1) + 1/r."""
    ranks = torch.arange(margins.shape[1] + 1, dtype=margins.dtype, device=margins.device)
    return torch.where(ranks > 0, 1 / ranks, 0).cumsum(0)
