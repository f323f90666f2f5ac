"""The two public functions: validate, choose a backend, call it."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from fastzsl.ops import eager, kernel_ops
from fastzsl.ops.autograd import AttendedScores, DenseAttention
from fastzsl.ops.checks import cast_for_autocast
from fastzsl.ops.choice import choose
from fastzsl.ops.stacked import is_stacked, stacked_scores


@overload
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float | Tensor = ...,
    return_attention: Literal[False] = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float | Tensor = ...,
    return_attention: Literal[True],
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def dense_attention(
    regions: Tensor,
    queries: Tensor,
    *,
    scale: float | Tensor = 1.0,
    return_attention: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Equation 3 of the paper: an attended feature for every image and class.

    A = softmax(scale · X^T H) over regions, X~ = X A; cross-attention with Q = queries, K = V = regions and
    one head of size d. In plain PyTorch::

        attention = (scale * queries @ regions.mT).softmax(-1)
        attended = attention @ regions

    What this op leaves out, and what to use for it (docs/drop-in.md shows each):

    - keys and values that are linear in the regions: move the matrices to the queries and behind the attention;
    - a temperature of each class: `queries * t[:, None]`;
    - heads: one call for each slice of d;
    - a mask or a bias of the regions (B, T): one more column of `regions`, and ones in `queries`;
    - queries of each image, values from elsewhere, a bias (B, C, T), dropout of the attention:
      `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        regions: X (B, T, d), T ≥ 1, any strides; a conv map (B, d, h, w) is `map.flatten(2).mT`.
            Any floating dtype; all tensors share dtype and device.
        queries: H (C, d).
        scale: factor on the logits; a tensor of one number gets its gradient.
        return_attention: also return A.
        backend: "auto", "eager", "native" or "triton"; see `backends()`.

    Returns:
        attended (B, C, d), or (attended, attention (B, C, T)); rows of attention sum to 1.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument.
        RuntimeError: a backend named explicitly cannot run the call; every reason is listed.

    >>> dense_attention(torch.zeros(2, 49, 64), torch.zeros(10, 64)).shape
    torch.Size([2, 10, 64])
    """
    tensors = cast_for_autocast(regions, queries)
    name, _, needs_grad = choose("dense_attention", tensors, scale, "", backend)
    regions, queries = tensors  # type: ignore[assignment]
    if name == "eager":
        return eager.dense_attention(
            regions, queries, scale=_number(scale), return_attention=return_attention
        )
    queries, factor = _take_in(queries, scale)
    if needs_grad:
        attended, attention = DenseAttention.apply(regions, queries, factor, name)
    else:
        attended, attention = kernel_ops.run(
            kernel_ops.attention_forward, name, (regions, queries), factor, return_attention
        )
    return (attended, attention) if return_attention else attended


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    scale: float | Tensor = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Equation 8's scores s(h_d(x~^c), k^c), exactly, without building the attended features X~.

    The decoder is linear and each row of A sums to 1, so the products can be done in the order that costs
    least (`plan_scores`). In plain PyTorch::

        decoded = F.linear(dense_attention(regions, queries, scale=scale), decoder_weight, decoder_bias)
        scores = (decoded * class_embeddings).sum(-1)           # "cosine": both normalised first

    Several scores under one attention, as DAZLE's value and gate of each attribute, are one call, which computes the
    attention once: stack G decoders, G tables of embeddings, or both; the scores are then (G, B, C).

    Args:
        regions: X (B, T, d), T ≥ 1, any strides.
        queries: H (C, d).
        decoder_weight: W (m, d) of h_d, or stacked (G, m, d).
        decoder_bias: b (m,) or None; (G, m) beside stacked decoders.
        class_embeddings: K (C, m), or stacked (G, C, m).
        similarity: "cosine" (norms clamped at 1e-12) or "dot".
        scale: factor on the logits before the softmax; a tensor of one number gets its gradient.
        backend: "auto", "eager", "native" or "triton"; see `backends()`.

    Returns:
        scores (B, C), in the inputs' dtype; (G, B, C) where decoders or embeddings are stacked.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, naming the argument.
        RuntimeError: a backend named explicitly cannot run the call; every reason is listed.

    >>> K, W = torch.eye(10, 5), torch.zeros(5, 64)
    >>> attended_scores(torch.zeros(2, 49, 64), torch.zeros(10, 64), W, None, K).shape
    torch.Size([2, 10])
    """
    if is_stacked(decoder_weight, class_embeddings):
        return stacked_scores(
            dense_attention, regions, queries, decoder_weight, decoder_bias, class_embeddings,
            similarity, scale, backend,
        )  # fmt: skip
    inputs = cast_for_autocast(regions, queries, decoder_weight, decoder_bias, class_embeddings)
    name, order, needs_grad = choose("attended_scores", inputs, scale, similarity, backend)
    if name == "eager":
        scale = _number(scale)
        return eager.attended_scores(*inputs, similarity=similarity, scale=scale, order=order)  # type: ignore[arg-type]
    regions, queries, decoder_weight, decoder_bias, class_embeddings = inputs  # type: ignore[assignment]
    queries, factor = _take_in(queries, scale)
    tensors = (regions, queries, decoder_weight, decoder_bias, class_embeddings)
    if needs_grad:
        return AttendedScores.apply(*tensors, similarity, factor, order, name)
    return kernel_ops.run(kernel_ops.scores_forward, name, tensors, similarity, factor, order, False)[0]


def _number(scale: float | Tensor) -> float | Tensor:
    """A tensor without dimensions does not change the dtype of the result."""
    return scale.reshape(()) if isinstance(scale, Tensor) else scale


def _take_in(queries: Tensor, scale: float | Tensor) -> tuple[Tensor, float]:
    """Kernels take a number. A tensor is multiplied into the queries, X^T (scale · H), so that it gets a gradient."""
    if isinstance(scale, Tensor):
        return queries * scale.reshape(()), 1.0
    return queries, scale
