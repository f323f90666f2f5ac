"""How far the attention of one class differs from another's: what manifold alignment is for, measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.protocol.scoring import BATCH, read_inputs


@dataclass(frozen=True)
class Separation:
    """Attention over pictures of unseen classes.

    Attributes:
        overlap: mean over pictures and other unseen classes c of sum_t min(A_true,t , A_c,t): 1 where every
            class looks at the same place, 0 where no two do.
        entropy: of the true class's attention as a share of log T: 1 is uniform, 0 a single region.
    """

    overlap: float
    entropy: float


@torch.no_grad()
def attention_separation(model: AttendedAutoencoder, data: ZeroShotDataset) -> Separation | None:
    """Compare the true class's attention with the other unseen classes'; None where there is no attention."""
    if model.pooling == "average" or len(data.unseen) < 2:
        return None
    device = next(model.parameters()).device
    embeddings = data.class_embeddings[data.unseen].to(device)
    overlap = entropy = 0.0
    for batch in data.test_unseen.split(BATCH):
        _, attention = model.attend(read_inputs(model, data, batch).to(device), embeddings)
        position = torch.searchsorted(data.unseen, data.labels[batch]).to(device)
        own = attention.float()[torch.arange(len(batch), device=device), position]
        common = torch.minimum(attention.float(), own[:, None]).sum(2).sum(1) - 1  # without the class itself
        overlap += float(common.sum()) / (len(data.unseen) - 1)
        entropy += float(torch.special.entr(own).sum()) / math.log(max(2, own.shape[1]))
    count = len(data.test_unseen)
    return Separation(overlap / count, entropy / count)
