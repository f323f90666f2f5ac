"""The ops in the shortest correct PyTorch, for any dtype. Every backend is compared with these functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dense_attention(
    regions: Tensor, queries: Tensor, *, scale: float | Tensor = 1.0, return_attention: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Equation 3: A = softmax(X^T H) over regions, X~ = X A.

    Args:
        regions: X, (B, T, d).
        queries: H, (C, d).
        scale: number or tensor of one number, factor on the logits.
        return_attention: also return A.

    Returns:
        attended X~ (B, C, d), or (attended, attention (B, C, T)).
    """
    attention = (scale * (queries @ regions.mT)).softmax(-1)
    attended = attention @ regions
    return (attended, attention) if return_attention else attended


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: str = "cosine",
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Equation 8's argument: s(h_d(x~^c), k^c) for every image and class.

    Args:
        regions: X, (B, T, d).
        queries: H, (C, d).
        decoder_weight, decoder_bias: h_d, (m, d) and (m,) or None.
        class_embeddings: K, (C, m).
        similarity: "cosine" or "dot".
        scale: number or tensor of one number, factor on the logits before the softmax.

    Returns:
        scores (B, C).
    """
    attended = dense_attention(regions, queries, scale=scale)
    decoded = F.linear(attended, decoder_weight, decoder_bias)  # type: ignore[arg-type]
    if similarity == "cosine":
        decoded, class_embeddings = F.normalize(decoded, dim=-1), F.normalize(class_embeddings, dim=-1)
    return (decoded * class_embeddings).sum(-1)


def prepare_regions(
    stored: Tensor,
    *,
    images: Tensor | None = None,
    kept: Tensor | None = None,
    power: float = 1.0,
    factor: float | Tensor = 1.0,
) -> Tensor:
    """Regions of stored features: factor · sign(x) |x|^power, in the dtype of `stored`.

    Args:
        stored: (N, S, d).
        images: (B,) int64, None for all in order.
        kept: (B, T) int64 regions of each image, None for all in order.
        power: exponent on the absolute values.
        factor: number, tensor of one number, or (B, 1, d).

    Returns:
        regions (B, T, d).
    """
    x = stored if images is None else stored[images]
    if kept is not None:
        x = x[torch.arange(len(x), device=x.device)[:, None], kept]
    return factor * x.sign() * x.abs() ** power
