"""The two `torch.autograd.Function`s over the opaque kernel ops.

The kernels' gradients cannot be differentiated again. For a second derivative (as in a gradient penalty), or a batch
of gradients at once (`is_grads_batched`), backward computes the gradients with the eager formulas instead, which
autograd can differentiate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastzsl.ops import eager, kernel_ops
from fastzsl.ops.transforms import is_batch_of_gradients, is_transformed


class DenseAttention(torch.autograd.Function):
    """X~ = X softmax(scale · X^T H), equation 3, by a kernel backend; returns (attended, attention)."""

    @staticmethod
    def forward(
        ctx: Any, regions: Tensor, queries: Tensor, scale: float, backend: str
    ) -> tuple[Tensor, Tensor]:
        attended, attention = kernel_ops.run(
            kernel_ops.attention_forward, backend, (regions, queries), scale, True
        )
        ctx.save_for_backward(regions, queries, attention)
        ctx.scale, ctx.backend = scale, backend
        ctx.set_materialize_grads(False)
        return attended, attention

    @staticmethod
    def backward(
        ctx: Any, grad_attended: Tensor | None, grad_attention: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        regions, queries, attention = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:2])
        if _by_formulas(grad_attended, grad_attention):
            return (
                *_differentiable_attention(ctx, regions, queries, grad_attended, grad_attention),
                None,
                None,
            )
        if grad_attended is None:
            if grad_attention is None:
                return None, None, None, None
            grad_attended = regions.new_zeros(*attention.shape[:2], regions.shape[2])
        tensors = (grad_attended, grad_attention, regions, queries, attention)
        grads = kernel_ops.run(kernel_ops.attention_backward, ctx.backend, tensors, ctx.scale, needs)
        return *(grad if need else None for grad, need in zip(grads, needs)), None, None


class AttendedScores(torch.autograd.Function):
    """s(h_d(x~^c), k^c) of equation 8 by a kernel backend, without building X~ for every class."""

    @staticmethod
    def forward(
        ctx: Any,
        regions: Tensor,
        queries: Tensor,
        decoder_weight: Tensor,
        decoder_bias: Tensor | None,
        class_embeddings: Tensor,
        similarity: str,
        scale: float,
        order: str,
        backend: str,
    ) -> Tensor:
        inputs = (regions, queries, decoder_weight, decoder_bias, class_embeddings)
        scores, attention, values = kernel_ops.run(
            kernel_ops.scores_forward, backend, inputs, similarity, scale, order, True
        )
        ctx.save_for_backward(*inputs, attention, values)
        ctx.settings = (similarity, scale, order)
        ctx.backend = backend
        return scores

    @staticmethod
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, attention, values = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:5])
        if _by_formulas(grad_scores):
            return *_differentiable_scores(ctx, inputs, grad_scores), None, None, None, None
        tensors = (grad_scores, *inputs, attention, values)
        grads = kernel_ops.run(kernel_ops.scores_backward, ctx.backend, tensors, *ctx.settings, needs)
        return *(grad if need else None for grad, need in zip(grads, needs)), None, None, None, None


def _by_formulas(*grads: Tensor | None) -> bool:
    return torch.is_grad_enabled() or is_transformed(*grads) or is_batch_of_gradients(*grads)


def _differentiable_attention(
    ctx: Any, regions: Tensor, queries: Tensor, grad_attended: Tensor | None, grad_attention: Tensor | None
) -> list[Tensor | None]:
    with torch.enable_grad():
        outputs = eager.dense_attention(regions, queries, scale=ctx.scale, return_attention=True)
    pairs = [(o, g) for o, g in zip(outputs, (grad_attended, grad_attention)) if g is not None]
    if not pairs:
        return [None, None]
    return _grads([o for o, _ in pairs], [regions, queries], [g for _, g in pairs], ctx.needs_input_grad)


def _differentiable_scores(ctx: Any, inputs: list[Tensor | None], grad: Tensor) -> list[Tensor | None]:
    similarity, scale, order = ctx.settings
    with torch.enable_grad():
        scores = eager.attended_scores(*inputs, similarity=similarity, scale=scale, order=order)  # type: ignore[arg-type]
    return _grads([scores], inputs, [grad], ctx.needs_input_grad)


def _grads(
    outputs: list[Tensor], inputs: list[Tensor | None], grads: list[Tensor], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    wanted = [t for t, need in zip(inputs, needs) if need and t is not None]
    create_graph = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=create_graph, allow_unused=True))
    return [next(found) if need and t is not None else None for t, need in zip(inputs, needs)]
