"""Backend "eager": plain PyTorch in the planner's order, which autograd and torch.compile can trace."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import reference
from fastzsl.ops.planner import needed_gradients, plan_scores

ORDERS: dict[str, tuple[str, ...]] = {
    "dot": ("attend", "project", "prototype"),
    "cosine": ("attend", "project"),
}
REMAKES_DECODED = False  # autograd saves the decoded features, see `planner.score_costs`

_EPS = 1e-12  # F.normalize's clamp
_NOTHING = 1e-30
_SLOPE = 1e-6  # added to |x|, whose power below 1 has an infinite slope at 0


def dense_attention(
    regions: Tensor, queries: Tensor, *, scale: float | Tensor = 1.0, return_attention: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """`reference.dense_attention`; plain PyTorch has no cheaper order."""
    return reference.dense_attention(regions, queries, scale=scale, return_attention=return_attention)


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: str = "cosine",
    scale: float | Tensor = 1.0,
    order: str | None = None,
) -> Tensor:
    """As `reference.attended_scores`, without ever building X~ (B, C, d) unless that is the cheapest order.

    Order "project" rounds each decoded region v_t before they are pooled to e. The error of its cosine, and of the
    gradients, is within twice that of plain PyTorch where |e|^2 >= 1/4 sum_t A_t^2 |v_t|^2; random regions have about
    equality without the 1/4. Where the regions cancel further it is up to about sqrt(d / T) times as large (9 times
    was the most seen, with d = 2048 and T = 16). So it is in Triton's kernels; the native ones make such pairs again as
    order "attend" does, and stay within twice. For few classes the ops call this function with order "attend".

    Args:
        order: one of `ORDERS[similarity]`; for None, or an order that only kernels have, the planner chooses.

    Returns:
        scores (B, C).
    """
    (B, T, d), (C, m) = regions.shape, class_embeddings.shape
    if order not in ORDERS[similarity]:
        gradients = needed_gradients(regions, queries, decoder_weight, decoder_bias, class_embeddings)
        order = plan_scores(B, T, C, d, m, similarity, ORDERS[similarity], gradients).order
    cosine = similarity == "cosine"
    if cosine:
        class_embeddings = F.normalize(class_embeddings, dim=-1)
    attention = (scale * (queries @ regions.mT)).softmax(-1)  # (B, C, T)

    if order == "prototype":
        prototypes = class_embeddings @ decoder_weight  # P (C, d)
        scores = (attention * (prototypes @ regions.mT)).sum(-1)
        return scores if decoder_bias is None else scores + class_embeddings @ decoder_bias
    if order == "project":
        values = F.linear(regions, decoder_weight, decoder_bias)  # V (B, T, m)
        if not cosine:
            return (attention * (class_embeddings @ values.mT)).sum(-1)
        decoded = attention @ values  # (B, C, m)
    else:
        decoded = F.linear(attention @ regions, decoder_weight, decoder_bias)  # (B, C, m)
    scores = (decoded * class_embeddings).sum(-1)
    return scores / decoded.norm(dim=-1).clamp_min(_EPS) if cosine else scores


def compress(x: Tensor, power: float) -> Tensor:
    """sign(x) |x|^power of frozen numbers.

    In one buffer, because to allocate an array of this size takes longer than to compute it, and as a product with
    |x|^(power - 1), because PyTorch's `copysign` is three times as slow. What is added changes 0 only.
    """
    return x.abs().add_(_NOTHING).pow_(power - 1).mul_(x)


def prepare_regions(
    stored: Tensor,
    images: Tensor | None,
    kept: Tensor | None,
    power: float,
    factor: float | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """`reference.prepare_regions` computed in float32 at least, with a finite slope at 0; the result is of `dtype`."""
    x = stored if images is None else stored[images]
    if kept is not None:  # first, so that dropped regions are not computed
        x = x[torch.arange(len(x), device=x.device)[:, None], kept]
    x = x.to(torch.promote_types(dtype, torch.float32))
    if power == 1:
        return (x * factor).to(dtype)
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad):
        return (x * (x.abs() + _SLOPE) ** (power - 1) * factor).to(dtype)
    compressed = compress(x, power)
    if isinstance(factor, Tensor) and factor.requires_grad and torch.is_grad_enabled():
        return (compressed * factor).to(dtype)
    return compressed.mul_(factor).to(dtype)
