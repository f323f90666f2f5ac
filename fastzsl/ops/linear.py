"""A linear layer of the class side by the native kernels' product, where that is faster than PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import native
from fastzsl.ops.dispatch import backends, known_backend
from fastzsl.ops.transforms import is_batch_of_gradients, is_plain, is_transformed

FAST = ("avx512", "avx512bf16", "amx")
"""Instruction sets whose products are at least as fast as PyTorch's. On AMD processors PyTorch's product library (MKL)
keeps to AVX2, which is half of what they can do with AVX-512."""
LEAST = 1_500_000
"""Multiply-adds, some ten microseconds; below, the call itself takes too large a part."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """y = x Wᵀ + b, as `torch.nn.functional.linear`, which computes it unless the native product is faster.

    Args:
        x: (C, k).
        weight: (n, k). bias: (n,) or None.
        backend: as of `fastzsl.ops.attended_scores`; "eager" and "triton" always use PyTorch's.

    Returns:
        (C, n).
    """
    if _serves(x, weight, bias, backend):
        y: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y
    return F.linear(x, weight, bias)


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> bool:
    tensors = (x, weight, bias)
    if not is_plain(tensors) or x.ndim != 2 or x.shape[0] * weight.numel() < LEAST:
        return False
    if any(t is not None and (t.dtype != torch.float32 or not t.is_cpu) for t in tensors):
        return False
    if torch.is_autocast_enabled("cpu") or is_transformed(*tensors):
        return False
    if known_backend(backend) not in ("auto", "native") or not backends()["native"]:
        return False
    return native.loaded_module().isa() in FAST


class _Linear(torch.autograd.Function):
    """The gradients are products too: dx = g W, dW = gᵀ x, db = sum of g's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return native.product(x, weight.mT, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        multiply = torch.mm if torch.is_grad_enabled() or is_batch_of_gradients(grad) else native.product
        d_x = multiply(grad, weight) if needs[0] else None
        d_weight = multiply(grad.mT, x) if needs[1] else None
        return d_x, d_weight, grad.sum(0) if needs[2] else None
