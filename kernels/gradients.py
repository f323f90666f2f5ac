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


def scores_backward_rows(
    grad_scores: Tensor, attention: Tensor, values: Tensor, gram_mix: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """([dS, dU] stacked (2, C, B, T), weighted (B, C, T) or empty); backward.scores_rows says how."""
    B, C, T = attention.shape
    stacked = empty((2, C, B, T), attention)
    small = attention if gram_mix is None else gram_mix
    weighted = empty((0,) if gram_mix is None else (B, C, T), attention, small.dtype)
    _rows_launch(
        scores_rows, attention.contiguous(), grad_scores=grad_scores, values=values.contiguous(),
        gram_mix=attention if gram_mix is None else gram_mix.contiguous(), COSINE=gram_mix is not None,
        grad_logits=stacked[0], grad_values=stacked[1], weighted=weighted,
        stride_gb=grad_scores.stride(0), stride_gc=grad_scores.stride(1), scale=scale,
    )  # fmt: skip
    return stacked, weighted


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
    stacked, _ = scores_backward_rows(grad_scores, attention, values, None, scale)
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
    """[dX, dH, dW, db, dK] of s = k . e or k^ . e / |e|, with e = A V, V = X W^T + b (projected, (B, T, m)).

    Nothing of size B C m is built. With D = dL/de = g/|e| (k^ - s e^) the products D V^T and A^T D become,
    through G = V V^T (T x T), the row kernel's inputs k^ V^T and A G, and
    dV = dU^T K^ - (A^T diag(g s/|e|^2) A) V.
    """
    (B, T, D), C, m = regions.shape, queries.shape[0], projected.shape[2]
    cosine = similarity == "cosine"
    grads = [empty((0,), regions) for _ in range(5)]  # a custom op may not return one tensor twice
    unit = F.normalize(embeddings.float(), dim=1).to(embeddings.dtype) if cosine else embeddings
    turned = projected.transpose(1, 2)
    values = torch.bmm(unit.expand(B, C, m), turned)
    gram_mix = _gram_mix(attention, projected) if cosine else None
    stacked, weighted = scores_backward_rows(grad_scores, attention, values, gram_mix, scale)
    both = stacked.view(2, C, B * T)

    if needs[0] or needs[2] or needs[3]:
        grad_projected = torch.mm(both[1].t(), unit)
        if cosine:
            mixer = torch.bmm(attention.transpose(1, 2).to(weighted.dtype), weighted)
            grad_projected = torch.baddbmm(
                grad_projected.view(B, T, m).to(mixer.dtype), mixer, projected.to(mixer.dtype), alpha=-1
            ).to(projected.dtype)
            grad_projected = grad_projected.view(B * T, m)
        if needs[0]:
            grads[0] = torch.addmm(torch.mm(both[0].t(), queries), grad_projected, weight).view(B, T, D)
        if needs[2]:
            grads[2] = torch.mm(grad_projected.t(), _flat(regions))
        if needs[3] and bias is not None:
            grads[3] = grad_projected.sum(0, dtype=torch.float32).to(bias.dtype)
    if needs[1]:
        grads[1] = torch.mm(both[0], _flat(regions))
    if needs[4]:
        grads[4] = torch.mm(both[1], projected.view(B * T, m))
        if cosine:
            grads[4] = _through_normalize(grads[4], embeddings)
    return grads


def _gram_mix(attention: Tensor, projected: Tensor) -> Tensor:
    """A G (B, C, T) with G = V V^T; float32 for float16, whose range |v|^2 and 1/|e|^2 would leave."""
    if projected.dtype == torch.float16:
        attention, projected = attention.float(), projected.float()
    return torch.bmm(attention, torch.bmm(projected, projected.transpose(1, 2)))


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
    decoded = F.linear(attended, weight, bias).float()
    g = grad_scores.float().unsqueeze(2)
    k = embeddings.float()
    if similarity == "cosine":
        k = F.normalize(k, dim=1)
        norm = decoded.norm(dim=2, keepdim=True)
        inverse = 1.0 / norm.clamp_min(1e-12)
        unit = decoded * inverse
        radial = (unit * k).sum(2, keepdim=True) * (norm > 1e-12)
        grad_decoded = (g * inverse * (k - radial * unit)).to(regions.dtype)
        if needs[4]:
            grads[4] = _through_normalize((g * unit).sum(0), embeddings)
    else:
        grad_decoded = (g * k).to(regions.dtype)
        if needs[4]:
            grads[4] = (g * decoded).sum(0).to(embeddings.dtype)
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
