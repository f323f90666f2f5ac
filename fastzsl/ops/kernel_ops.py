"""The kernel backends as opaque `torch.library.custom_op`s, so that compile, export and opcheck know them.

There is one op for each forward and backward function; `backend` names the module that computes it (see `dispatch`).
Outputs that are not needed are empty tensors of shape (0,), because a schema cannot have optional results.
"""

# No `from __future__ import annotations` here: custom_op reads its schema from real annotations.
from typing import Any, List, Optional, Tuple  # noqa: UP035

import torch
from torch import Tensor

from fastzsl.ops.dispatch import kernel_module
from fastzsl.ops.saved import values_shape
from fastzsl.ops.transforms import is_plain


def run(op: Any, backend: str, tensors: Tuple[Optional[Tensor], ...], *settings: Any) -> Any:  # noqa: UP006, UP045
    """Call `op` of this module, or directly the backend's function if no compiler or tracer needs the op."""
    if is_plain(tensors):
        return getattr(kernel_module(backend), _FUNCTIONS[op])(*tensors, *settings)
    return op(*tensors, *settings, backend)


@torch.library.custom_op("fastzsl::dense_attention", mutates_args=())
def attention_forward(
    regions: Tensor, queries: Tensor, scale: float, return_attention: bool, backend: str
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """(attended (B, C, d), attention (B, C, T) or empty)."""
    return kernel_module(backend).attention_forward(regions, queries, scale, return_attention)


@attention_forward.register_fake
def _(regions: Tensor, queries: Tensor, scale: float, return_attention: bool, backend: str):  # type: ignore[no-untyped-def]
    B, T, d = regions.shape
    C = queries.shape[0]
    return regions.new_empty(B, C, d), regions.new_empty((B, C, T) if return_attention else (0,))


@torch.library.custom_op("fastzsl::dense_attention_backward", mutates_args=())
def attention_backward(
    grad_attended: Tensor,
    grad_attention: Optional[Tensor],  # noqa: UP045
    regions: Tensor,
    queries: Tensor,
    attention: Tensor,
    scale: float,
    needs: List[bool],  # noqa: UP006
    backend: str,
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Gradients of (regions, queries), empty where `needs` says False."""
    return kernel_module(backend).attention_backward(
        grad_attended, grad_attention, regions, queries, attention, scale, needs
    )


@attention_backward.register_fake
def _(grad_attended, grad_attention, regions, queries, attention, scale, needs, backend):  # type: ignore[no-untyped-def]
    return tuple(t.new_empty(t.shape if need else (0,)) for t, need in zip((regions, queries), needs))


@torch.library.custom_op("fastzsl::attended_scores", mutates_args=())
def scores_forward(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Optional[Tensor],  # noqa: UP045
    class_embeddings: Tensor,
    similarity: str,
    scale: float,
    order: str,
    save: bool,
    backend: str,
) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """(scores (B, C), attention (B, C, T), values); the last two empty unless `save`.

    `values` is V (B, T, m) in order "project", X~ (B, C, d) in "attend" and U (B, C, T) in "prototype" (dot only),
    without the contribution of the bias.
    """
    return kernel_module(backend).scores_forward(
        regions, queries, decoder_weight, decoder_bias, class_embeddings, similarity, scale, order, save
    )


@scores_forward.register_fake
def _(  # type: ignore[no-untyped-def]
    regions, queries, decoder_weight, decoder_bias, class_embeddings, similarity, scale, order, save, backend
):
    B, T, d = regions.shape
    C, m = class_embeddings.shape
    values = values_shape(B, T, C, d, m, similarity, order)
    return (
        regions.new_empty(B, C),
        regions.new_empty((B, C, T) if save else (0,)),
        regions.new_empty(values if save else (0,)),
    )


@torch.library.custom_op("fastzsl::attended_scores_backward", mutates_args=())
def scores_backward(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Optional[Tensor],  # noqa: UP045
    class_embeddings: Tensor,
    attention: Tensor,
    values: Tensor,
    similarity: str,
    scale: float,
    order: str,
    needs: List[bool],  # noqa: UP006
    backend: str,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
    """Gradients of the five tensors in order, empty where `needs` says False."""
    return kernel_module(backend).scores_backward(
        grad_scores, regions, queries, decoder_weight, decoder_bias, class_embeddings,
        attention, values, similarity, scale, order, needs,
    )  # fmt: skip


@scores_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_scores, regions, queries, decoder_weight, decoder_bias, class_embeddings,
    attention, values, similarity, scale, order, needs, backend,
):  # fmt: skip
    inputs = (regions, queries, decoder_weight, decoder_bias, class_embeddings)
    return tuple(
        regions.new_empty((0,)) if t is None or not need else t.new_empty(t.shape)
        for t, need in zip(inputs, needs)
    )


_FUNCTIONS = {
    attention_forward: "attention_forward",
    attention_backward: "attention_backward",
    scores_forward: "scores_forward",
    scores_backward: "scores_backward",
}
