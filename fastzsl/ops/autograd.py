"""The two `torch.autograd.Function`s over the opaque kernel ops.

The kernels' gradients are not differentiable themselves. When somebody differentiates twice (a gradient
penalty), backward computes the gradients with the eager formulas instead, which autograd sees through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastzsl.ops import eager, kernel_ops


class DenseAttention(torch.autograd.Function):
    """X~ = X softmax(scale · X^T H), equation 3, by a kernel backend; returns (attended, attention)."""

    @staticmethod
    def forward(
        ctx: Any, regions: Tensor, queries: Tensor, scale: float, backend: str
    ) -> tuple[Tensor, Tensor]:
        attended, attention = kernel_ops.attention_forward(regions, queries, scale, True, backend)
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
        if torch.is_grad_enabled():
            return (
                *_differentiable_attention(ctx, regions, queries, grad_attended, grad_attention),
                None,
                None,
            )
        if grad_attended is None:
            if grad_attention is None:
                return None, None, None, None
            grad_attended = regions.new_zeros(*attention.shape[:2], regions.shape[2])
        grads = kernel_ops.attention_backward(
            grad_attended, grad_attention, regions, queries, attention, ctx.scale, needs, ctx.backend
        )
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
        scores, attention, values = kernel_ops.scores_forward(
            *inputs, similarity, scale, order, True, backend
        )
        ctx.save_for_backward(*inputs, attention, values)
        ctx.settings = (similarity, scale, order)
        ctx.backend = backend
        return scores

    @staticmethod
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, attention, values = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:5])
        if torch.is_grad_enabled():
            return *_differentiable_scores(ctx, inputs, grad_scores), None, None, None, None
        grads = kernel_ops.scores_backward(
            grad_scores, *inputs, attention, values, *ctx.settings, needs, ctx.backend
        )
        return *(grad if need else None for grad, need in zip(grads, needs)), None, None, None, None


def _differentiable_attention(
    ctx: Any, regions: Tensor, queries: Tensor, grad_attended: Tensor | None, grad_attention: Tensor | None
) -> list[Tensor | None]:
    outputs = eager.dense_attention(regions, queries, scale=ctx.scale, return_attention=True)
    pairs = [(o, g) for o, g in zip(outputs, (grad_attended, grad_attention)) if g is not None]
    if not pairs:
        return [None, None]
    return _grads([o for o, _ in pairs], [regions, queries], [g for _, g in pairs], ctx.needs_input_grad)


def _differentiable_scores(ctx: Any, inputs: list[Tensor | None], grad: Tensor) -> list[Tensor | None]:
    similarity, scale, order = ctx.settings
    scores = eager.attended_scores(*inputs, similarity=similarity, scale=scale, order=order)  # type: ignore[arg-type]
    return _grads([scores], inputs, [grad], ctx.needs_input_grad)


def _grads(
    outputs: list[Tensor], inputs: list[Tensor | None], grads: list[Tensor], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    wanted = [t for t, need in zip(inputs, needs) if need and t is not None]
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if need and t is not None else None for t, need in zip(inputs, needs)]
