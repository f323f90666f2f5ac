"""The two public functions: validate, choose a backend, call it."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from fastzsl.ops import eager, kernel_ops
from fastzsl.ops.autograd import AttendedScores, DenseAttention
from fastzsl.ops.checks import cast_for_autocast, check_attention, check_scores
from fastzsl.ops.dispatch import Call, kernel_module, resolve
from fastzsl.ops.planner import plan_scores


@overload
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float = ...,
    return_attention: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float = ...,
    return_attention: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float = 1.0,
    return_attention: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Equation 3 of the paper: every class's own attended feature of every picture.

    A = softmax(scale · X^T H) over regions, X~ = X A; cross-attention with Q = queries, K = V = regions and
    one head of size d. In plain PyTorch::

        attention = (scale * queries @ regions.mT).softmax(-1)
        attended = attention @ regions

    Args:
        regions: X (B, T, d), T ≥ 1, any strides; a conv map (B, d, h, w) is `map.flatten(2).mT`.
            Any floating dtype; all tensors share dtype and device.
        queries: H (C, d).
        scale: factor on the logits.
        return_attention: also return A.
        backend: "auto", "eager", "native" or "triton"; see `backends()`.

    Returns:
        attended (B, C, d), or (attended, attention (B, C, T)); rows of attention sum to 1.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument.
        RuntimeError: a backend named explicitly cannot serve; every reason is listed.

    >>> dense_attention(torch.zeros(2, 49, 64), torch.zeros(10, 64)).shape
    torch.Size([2, 10, 64])
    """
    regions, queries = cast_for_autocast(regions, queries)  # type: ignore[assignment]
    check_attention(regions, queries, scale)
    (B, T, d), C = regions.shape, queries.shape[0]
    needs_grad = torch.is_grad_enabled() and (regions.requires_grad or queries.requires_grad)
    call = Call("dense_attention", regions.device, regions.dtype, B, T, C, d, needs_grad=needs_grad)
    name = resolve(backend, call)
    if name == "eager":
        return eager.dense_attention(regions, queries, scale=scale, return_attention=return_attention)
    if needs_grad:
        attended, attention = DenseAttention.apply(regions, queries, scale, name)
    else:
        attended, attention = kernel_ops.attention_forward(regions, queries, scale, return_attention, name)
    return (attended, attention) if return_attention else attended


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Equation 8's scores s(h_d(x~^c), k^c), exactly, without building the attended features X~.

    The decoder is linear and each row of A sums to 1, so the contraction may be done in the order that costs
    least (`plan_scores`). In plain PyTorch::

        decoded = F.linear(dense_attention(regions, queries, scale=scale), decoder_weight, decoder_bias)
        scores = (decoded * class_embeddings).sum(-1)           # "cosine": both normalised first

    Args:
        regions: X (B, T, d), T ≥ 1, any strides.
        queries: H (C, d).
        decoder_weight: W (m, d) of h_d.
        decoder_bias: b (m,) or None.
        class_embeddings: K (C, m).
        similarity: "cosine" (norms clamped at 1e-12) or "dot".
        scale: factor on the logits before the softmax.
        backend: "auto", "eager", "native" or "triton"; see `backends()`.

    Returns:
        scores (B, C), in the inputs' dtype.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument.
        RuntimeError: a backend named explicitly cannot serve; every reason is listed.

    >>> K, W = torch.eye(10, 5), torch.zeros(5, 64)
    >>> attended_scores(torch.zeros(2, 49, 64), torch.zeros(10, 64), W, None, K).shape
    torch.Size([2, 10])
    """
    tensors = cast_for_autocast(regions, queries, decoder_weight, decoder_bias, class_embeddings)
    check_scores(*tensors, similarity, scale)  # type: ignore[arg-type, call-arg]
    (B, T, d), (C, m) = regions.shape, class_embeddings.shape
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    dtype = tensors[0].dtype  # type: ignore[union-attr]
    call = Call("attended_scores", regions.device, dtype, B, T, C, d, m, similarity, needs_grad)
    name = resolve(backend, call)
    if name == "eager":
        return eager.attended_scores(*tensors, similarity=similarity, scale=scale)  # type: ignore[arg-type]
    order = plan_scores(B, T, C, d, m, similarity, kernel_module(name).ORDERS[similarity]).order
    if needs_grad:
        return AttendedScores.apply(*tensors, similarity, scale, order, name)
    return kernel_ops.scores_forward(*tensors, similarity, scale, order, False, name)[0]  # type: ignore[arg-type]
