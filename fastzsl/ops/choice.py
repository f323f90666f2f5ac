"""Backend and order of a call. The choice is stored for equal calls, because it takes longer than a small product."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastzsl.ops import eager
from fastzsl.ops.checks import check_attention, check_scale, check_scores
from fastzsl.ops.dispatch import Call, default_backend, kernel_module, resolve
from fastzsl.ops.planner import needed_gradients, plan_scores
from fastzsl.ops.transforms import is_plain, is_transformed

Inputs = tuple[Tensor | None, ...]
_MOST = 4096  # remembered choices
_FEW = 4  # classes for which eager's "attend" costs next to nothing, and cosines of cancelling regions stay exact


class Choice(NamedTuple):
    """How a call is computed."""

    backend: str
    order: str
    """Of `attended_scores`; empty for `dense_attention`."""
    needs_grad: bool


_choices: dict[tuple[object, ...], Choice] = {}


def choose(op: str, tensors: Inputs, scale: float | Tensor, similarity: str, backend: str) -> Choice:
    """Validate a call and choose its backend and order.

    Args:
        op: "dense_attention" or "attended_scores".
        tensors: its tensor arguments in order.
        scale, similarity, backend: as in the ops.

    Raises:
        ValueError, TypeError, RuntimeError: as the ops say.
    """
    transformed = is_transformed(*tensors, scale)
    if transformed or not is_plain(tensors) or isinstance(scale, Tensor):
        return _choose(op, tensors, scale, similarity, backend, transformed)
    # Everything that validation and choice depend on, except the scale. On a GPU they depend on global settings too.
    key = (
        op, similarity, backend, default_backend(), torch.is_grad_enabled(),
        *[None if t is None else (t.shape, t.dtype, t.device, t.requires_grad) for t in tensors],
    )  # fmt: skip
    choice = _choices.get(key)
    if choice is None:
        choice = _choose(op, tensors, scale, similarity, backend, False)
        if choice.backend != "triton" and tensors[0].is_cpu:  # type: ignore[union-attr]
            if len(_choices) >= _MOST:
                _choices.clear()
            _choices[key] = choice
    else:
        check_scale(scale)
    return choice


def _choose(
    op: str, tensors: Inputs, scale: float | Tensor, similarity: str, backend: str, transformed: bool
) -> Choice:
    scores = op == "attended_scores"
    if scores:
        check_scores(*tensors, similarity, scale)  # type: ignore[arg-type, call-arg]
    else:
        check_attention(*tensors, scale)  # type: ignore[arg-type, call-arg]
    gradients = needed_gradients(*tensors)
    learns_scale = isinstance(scale, Tensor) and scale.requires_grad and torch.is_grad_enabled()
    if learns_scale and "queries" not in gradients:
        gradients += ("queries",)  # the kernels get its gradient through them
    regions: Tensor = tensors[0]  # type: ignore[assignment]
    B, T, d = regions.shape
    C, m = tensors[-1].shape if scores else (tensors[1].shape[0], 0)  # type: ignore[union-attr, arg-type]
    call = Call(op, regions.device, regions.dtype, B, T, C, d, m, similarity, bool(gradients), transformed)
    name = resolve(backend, call)
    if not scores:
        return Choice(name, "", bool(gradients))
    kernels = eager if name == "eager" else kernel_module(name)
    orders = kernels.ORDERS[similarity]
    if torch.compiler.is_exporting():  # one program for any B and C: its order may depend on neither
        return Choice(name, "project" if m <= d else "attend", bool(gradients))
    if name == "eager" and similarity == "cosine" and C <= _FEW:
        orders = ("attend",)
    plan = plan_scores(B, T, C, d, m, similarity, orders, gradients, kernels.REMAKES_DECODED)
    return Choice(name, plan.order, bool(gradients))
