"""Backend "eager": plain PyTorch in the planner's order. Autograd and torch.compile see through it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops.planner import ORDERS, plan_scores
from fastzsl.ops.reference import dense_attention

__all__ = ["attended_scores", "dense_attention"]

_EPS = 1e-12  # F.normalize's clamp


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: str = "cosine",
    scale: float = 1.0,
    order: str | None = None,
) -> Tensor:
    """As `reference.attended_scores`, without ever building X~ (B, C, d) unless that is the cheapest order.

    Args:
        order: "attend", "project" or "prototype"; None lets the planner choose.

    Returns:
        scores (B, C).
    """
    (B, T, d), (C, m) = regions.shape, class_embeddings.shape
    if order is None:
        order = plan_scores(B, T, C, d, m, similarity, ORDERS).order
    cosine = similarity == "cosine"
    if cosine:
        class_embeddings = F.normalize(class_embeddings, dim=-1)
    attention = (scale * (queries @ regions.mT)).softmax(-1)  # (B, C, T)

    if order == "attend":
        decoded = F.linear(attention @ regions, decoder_weight, decoder_bias)  # (B, C, m)
        scores, length = (decoded * class_embeddings).sum(-1), decoded.norm(dim=-1)
    elif order == "project":
        values = F.linear(regions, decoder_weight, decoder_bias)  # V (B, T, m)
        if cosine:
            decoded = attention @ values  # (B, C, m)
            scores, length = (decoded * class_embeddings).sum(-1), decoded.norm(dim=-1)
        else:
            scores = (attention * (class_embeddings @ values.mT)).sum(-1)
    else:
        prototypes = class_embeddings @ decoder_weight  # P (C, d)
        scores = (attention * (prototypes @ regions.mT)).sum(-1)
        if decoder_bias is not None:
            scores = scores + class_embeddings @ decoder_bias
        if cosine:
            values = F.linear(regions, decoder_weight, decoder_bias)
            squared = ((attention @ (values @ values.mT)) * attention).sum(-1)
            length = torch.sqrt(squared.clamp_min(_EPS**2))
    return scores / length.clamp_min(_EPS) if cosine else scores
