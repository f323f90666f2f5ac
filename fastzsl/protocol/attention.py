"""Measures of attention: whether it is on the object, and how much it differs between classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.method import Model
from fastzsl.protocol.scoring import BATCH, place_of, read_inputs


@dataclass(frozen=True)
class Localisation:
    """How often the attention's maximum falls on the object.

    Attributes:
        hits: share of the images whose most attended region has its centre on the object's mask.
        chance: the same share for a region picked at random.
    """

    hits: float
    chance: float


@dataclass(frozen=True)
class Separation:
    """Attention over images of unseen classes.

    Attributes:
        overlap: mean over images and other unseen classes c of sum_t min(A_true,t , A_c,t): 1 if all classes
            attend to the same regions, 0 if no two classes share a region.
        entropy: of the true class's attention as a share of log T: 1 is uniform, 0 a single region.
    """

    overlap: float
    entropy: float


@torch.no_grad()
def attention_of(model: Model, data: ZeroShotDataset, indices: Tensor, classes: Tensor) -> Tensor | None:
    """Attention (B, C, T) float32 on the CPU; None for a model without.

    Args:
        indices: (B,) images.
        classes: (C,) class ids.
    """
    model.eval()
    device, dtype = place_of(model)
    descriptions = data.class_embeddings[classes].to(device, dtype)
    attention = model.attention(read_inputs(model, data, indices).to(device), descriptions)
    return None if attention is None else attention.float().cpu()


@torch.no_grad()
def attribute_attention_of(model: Model, data: ZeroShotDataset, indices: Tensor) -> Tensor | None:
    """Attention of each attribute (B, m, T) float32 on the CPU; None for a model without attention of single ones."""
    if not model.shows_attributes:
        return None
    model.eval()
    device, _ = place_of(model)
    return model.attribute_attention(read_inputs(model, data, indices).to(device)).float().cpu()


def localisation(model: Model, data: ZeroShotDataset, indices: Tensor) -> Localisation | None:
    """Attention of the true class over `indices` against the objects' masks.

    None where there is no attention, or where masks are not known.
    """
    if data.images is None or not len(indices):
        return None
    everything = torch.arange(data.num_classes)
    hits, chance = [], []
    for batch in indices.split(BATCH):
        if data.images.mask(int(data.image_ids[batch[0]])) is None:
            return None
        attention = attention_of(model, data, batch, everything)
        if attention is None:
            return None
        side = round(attention.shape[2] ** 0.5)
        own = attention[torch.arange(len(batch)), data.labels[batch]]
        for index, weights in zip(batch.tolist(), own):
            mask = data.images.mask(int(data.image_ids[index]))
            if mask is None or side * side != attention.shape[2]:
                return None
            centres = torch.from_numpy(mask)[_centres(mask.shape[0], side)][:, _centres(mask.shape[1], side)]
            hits.append(float(centres.flatten()[int(weights.argmax())]))
            chance.append(float(centres.float().mean()))
    return Localisation(sum(hits) / len(hits), sum(chance) / len(chance))


def attention_separation(model: Model, data: ZeroShotDataset) -> Separation | None:
    """Compare the true class's attention with the other unseen classes'; None where there is no attention."""
    if len(data.unseen) < 2 or not len(data.test_unseen):
        return None
    overlap = entropy = 0.0
    for batch in data.test_unseen.split(BATCH):
        attention = attention_of(model, data, batch, data.unseen)
        if attention is None:
            return None
        position = torch.searchsorted(data.unseen, data.labels[batch])
        own = attention[torch.arange(len(batch)), position]
        common = torch.minimum(attention, own[:, None]).sum(2).sum(1) - 1  # without the class itself
        overlap += float(common.sum()) / (len(data.unseen) - 1)
        entropy += float(torch.special.entr(own).sum()) / math.log(max(2, own.shape[1]))
    count = len(data.test_unseen)
    return Separation(overlap / count, entropy / count)


def _centres(size: int, cells: int) -> Tensor:
    return ((torch.arange(cells) + 0.5) * size / cells).long()
