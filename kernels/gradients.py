"""Backward passes: a row kernel for what is elementwise, torch.matmul for the rest.

Sums over images and regions are single matrix products with B T as the inner dimension: no atomics, one
fixed order. Gradients nobody needs are not computed, and frozen regions cost nothing. In the names of the
ops' equations:

    dS, dU   gradients of the logits H X^T and of the values u, laid out (C, B, T)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from . import configs
from .backward import scores_rows, softmax_rows
from .launch import empty, on_device

_MOST_DECODED = 1 << 26
"""Numbers of D = dL/de (B, C, m) made at a time in the backward pass of the cosine: 256 MiB in float32."""


def _rows_launch(kernel: Any, attention: Tensor, **arguments: Any) -> None:
    B, C, T = attention.shape
    blocks = configs.rows_for(T)
    if B == 0 or C == 0:
        return
    with on_device(attention):
        kernel[(triton.cdiv(B * C, blocks["BLOCK_R"]),)](
            attention=attention, B=B, C=C, REGIONS=T, **blocks, **arguments
        )


def softmax_backward(grad_attention: Tensor, extra: Tensor | None, attention: Tensor, scale: float) -> Tensor:
    """dS (C, B, T) = scale A (dA - sum_t A dA), dA = grad_attention + extra, all three (B, C, T)."""
    B, C, T = attention.shape
    grad_logits = empty((C, B, T), attention)
    _rows_launch(
        softmax_rows, attention.contiguous(), grad_attention=grad_attention.contiguous(),
        extra=attention if extra is None else extra.contiguous(), EXTRA=extra is not None,
        grad_logits=grad_logits, scale=scale,
    )  # fmt: skip
    return grad_logits


def scores_backward_rows(grad_scores: Tensor, attention: Tensor, values: Tensor, scale: float) -> Tensor:
    """[dS, dU] of the dot product, stacked (2, C, B, T); backward.scores_rows says how."""
    B, C, T = attention.shape
    stacked = empty((2, C, B, T), attention)
    _rows_launch(
        scores_rows, attention.contiguous(), grad_scores=grad_scores, values=values.contiguous(),
        grad_logits=stacked[0], grad_values=stacked[1],
        stride_gb=grad_scores.stride(0), stride_gc=grad_scores.stride(1), scale=scale,
    )  # fmt: skip
    return stacked


def _flat(regions: Tensor) -> Tensor:
    """(B T, d); a copy where regions lie feature first."""
    return regions.reshape(-1, regions.shape[2])


def attention_gradients(
    grad_attended: Tensor,
    grad_attention: Tensor | None,
    regions: Tensor,
    queries: Tensor,
    attention: Tensor,
    scale: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    """(dX (B, T, d), dH (C, d)) of X~ = A X; an empty tensor where `needs` is False.

    dA = D X^T,  dS = scale A (dA - sum_t A dA),  dX = A^T D + dS^T H,  dH = sum_b dS_b X_b.
    """
    (B, T, D), C = regions.shape, queries.shape[0]
    grad = torch.bmm(grad_attended, regions.transpose(1, 2))
    rows = softmax_backward(grad, grad_attention, attention, scale).view(C, B * T)
    grad_regions = empty((0,), regions)
    grad_queries = empty((0,), regions)
    if needs[0]:
        grad_regions = torch.mm(rows.t(), queries).view(B, T, D)
        grad_regions.baddbmm_(attention.transpose(1, 2), grad_attended)
    if needs[1]:
        grad_queries = torch.mm(rows, _flat(regions))
    return grad_regions, grad_queries


def prototype_gradients(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    embeddings: Tensor,
    attention: Tensor,
    values: Tensor,
    scale: float,
    needs: list[bool],
) -> list[Tensor]:
    """[dX, dH, dW, db, dK] of s = sum_t A (p x + q), p = K W, q = K b.

    dX = [dS; dU]^T [H; P] and [dH; dP] = [dS; dU] X are one product each;
    dW = K^T dP, dK = dP W^T + dq b^T, db = K^T dq, dq = sum dU.
    """
    (B, T, D), C = regions.shape, queries.shape[0]
    grads = [empty((0,), regions) for _ in range(5)]  # a custom op may not return one tensor twice
    stacked = scores_backward_rows(grad_scores, attention, values, scale)
    both = stacked.view(2 * C, B * T)
    if needs[0]:
        grads[0] = torch.mm(both.t(), torch.cat([queries, embeddings @ weight])).view(B, T, D)
    wants_prototypes = needs[2] or needs[4]
    if needs[1] or wants_prototypes:
        rows = both if needs[1] and wants_prototypes else both[:C] if needs[1] else both[C:]
        product = torch.mm(rows, _flat(regions))
        if needs[1]:
            grads[1] = product[:C].clone() if wants_prototypes else product
        if wants_prototypes:
            grad_prototypes = product[-C:]
            if needs[2]:
                grads[2] = embeddings.t() @ grad_prototypes
            if needs[4]:
                grads[4] = grad_prototypes @ weight.t()
    if bias is not None and (needs[3] or needs[4]):
        grad_offsets = stacked[1].sum((1, 2), dtype=torch.float32)
        if needs[3]:
            grads[3] = (embeddings.t().float() @ grad_offsets).to(bias.dtype)
        if needs[4]:
            grads[4] = (grads[4].float() + torch.outer(grad_offsets, bias.float())).to(embeddings.dtype)
    return grads


def projected_gradients(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    embeddings: Tensor,
    attention: Tensor,
    projected: Tensor,
    similarity: str,
    scale: float,
    needs: list[bool],
) -> list[Tensor]:
    """[dX, dH, dW, db, dK] of s = k . e or the cosine of k and e, with e = A V, V = X W^T + b (projected, (B, T, m)).

    With dS and dV (B, T, m) from `_dot_rows` or `_cosine_rows`:

        dX = dS^T H + dV W,   dH = sum_b dS_b X_b,   dW = dV^T X,   db = sum dV
    """
    B, T, D = regions.shape
    grads = [empty((0,), regions) for _ in range(5)]  # a custom op may not return one tensor twice
    rows = _cosine_rows if similarity == "cosine" else _dot_rows
    logits, values, grads[4] = rows(grad_scores, embeddings, attention, projected, scale, needs)
    if needs[0]:
        grads[0] = torch.addmm(torch.mm(logits.t(), queries), values, weight).view(B, T, D)
    if needs[1]:
        grads[1] = torch.mm(logits, _flat(regions))
    if needs[2]:
        grads[2] = torch.mm(values.t(), _flat(regions))
    if needs[3] and bias is not None:
        grads[3] = values.sum(0, dtype=torch.float32).to(bias.dtype)
    return grads


def _dot_rows(
    grad_scores: Tensor,
    embeddings: Tensor,
    attention: Tensor,
    projected: Tensor,
    scale: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """(dS (C, B T), dV (B T, m), dK (C, m)) of s = k . e: with U = V K^T nothing of size B C m is built."""
    B, T, m = projected.shape
    C = embeddings.shape[0]
    values = torch.bmm(embeddings.expand(B, C, m), projected.transpose(1, 2))
    logits, weighted = scores_backward_rows(grad_scores, attention, values, scale).view(2, C, B * T)
    grad_projected = torch.mm(weighted.t(), embeddings) if needs[0] or needs[2] or needs[3] else values
    grad_embeddings = torch.mm(weighted, projected.view(B * T, m)) if needs[4] else empty((0,), projected)
    return logits, grad_projected, grad_embeddings


def _cosine_rows(
    grad_scores: Tensor,
    embeddings: Tensor,
    attention: Tensor,
    projected: Tensor,
    scale: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_dot_rows`, of the cosine: with D = dL/de (B, C, m), dA = D V^T and dV = A^T D.

    D V^T and A^T D can also be had from the Gram matrix of V, without D. But where the regions of an image nearly
    cancel in e, that loses most digits: gradients were 1,000 times less exact than plain PyTorch's. D is made for a
    few images at a time.
    """
    (B, T, m), C = projected.shape, embeddings.shape[0]
    grad_attention = empty((B, C, T), projected)
    grad_projected = empty((B, T, m), projected)
    grad_embeddings = torch.zeros_like(embeddings, dtype=torch.float32)
    images = max(1, _MOST_DECODED // max(1, C * m))
    for start in range(0, B, images):
        part = slice(start, start + images)
        decoded = torch.bmm(attention[part], projected[part])
        grad, of_embeddings = _decoded_gradient(grad_scores[part], decoded, embeddings, "cosine")
        if needs[0] or needs[1]:
            torch.bmm(grad, projected[part].transpose(1, 2), out=grad_attention[part])
        if needs[0] or needs[2] or needs[3]:
            torch.bmm(attention[part].transpose(1, 2), grad, out=grad_projected[part])
        grad_embeddings += of_embeddings
    if needs[0] or needs[1]:
        logits = softmax_backward(grad_attention, None, attention, scale)
    else:
        logits = grad_attention
    found = _through_normalize(grad_embeddings, embeddings) if needs[4] else empty((0,), projected)
    return logits.view(C, B * T), grad_projected.view(B * T, m), found


def _decoded_gradient(
    grad_scores: Tensor, decoded: Tensor, embeddings: Tensor, similarity: str
) -> tuple[Tensor, Tensor]:
    """(dL/de (B, C, m) in e's dtype, float32 gradient (C, m) of k, for the cosine of k^ = k / |k|).

    dot: D = g k.   cosine: D = g / |e| (k^ - s e^), with e^ = e / |e|, and s e^ = 0 below the clamp of `F.normalize`.
    """
    g, e, k = grad_scores.float().unsqueeze(2), decoded.float(), embeddings.float()
    if similarity == "dot":
        return (g * k).to(decoded.dtype), (g * e).sum(0)
    k = F.normalize(k, dim=1)
    norm = e.norm(dim=2, keepdim=True)
    inverse = 1.0 / norm.clamp_min(1e-12)
    unit = e * inverse
    radial = (unit * k).sum(2, keepdim=True) * (norm > 1e-12)
    return (g * inverse * (k - radial * unit)).to(decoded.dtype), (g * unit).sum(0)


def _through_normalize(grad_unit: Tensor, rows: Tensor) -> Tensor:
    """Gradient of F.normalize(rows, dim=1): (g - r^ (r^ . g)) / |r|, and g / 1e-12 below the clamp."""
    grad, rows32 = grad_unit.float(), rows.float()
    norm = rows32.norm(dim=1, keepdim=True)
    unit = rows32 / norm.clamp_min(1e-12)
    radial = unit * (unit * grad).sum(1, keepdim=True) * (norm > 1e-12)
    return ((grad - radial) / norm.clamp_min(1e-12)).to(rows.dtype)


def attended_gradients(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    embeddings: Tensor,
    attention: Tensor,
    attended: Tensor,
    similarity: str,
    scale: float,
    needs: list[bool],
) -> list[Tensor]:
    """[dX, dH, dW, db, dK] of the plain order, for few classes: e = X~ W^T + b, X~ (B, C, d) kept."""
    B, C, D = attended.shape
    grads = [empty((0,), regions) for _ in range(5)]  # a custom op may not return one tensor twice
    decoded = F.linear(attended, weight, bias)
    grad_decoded, of_embeddings = _decoded_gradient(grad_scores, decoded, embeddings, similarity)
    if needs[4]:
        cosine = similarity == "cosine"
        grads[4] = (
            _through_normalize(of_embeddings, embeddings) if cosine else of_embeddings.to(embeddings.dtype)
        )
    rows = grad_decoded.view(B * C, weight.shape[0])
    if needs[0] or needs[1]:
        grad_attended = torch.mm(rows, weight).view(B, C, D)
        grads[0], grads[1] = attention_gradients(
            grad_attended, None, regions, queries, attention, scale, needs[:2]
        )
    if needs[2]:
        grads[2] = torch.mm(rows.t(), attended.view(B * C, D))
    if needs[3] and bias is not None:
        grads[3] = rows.sum(0, dtype=torch.float32).to(bias.dtype)
    return grads
