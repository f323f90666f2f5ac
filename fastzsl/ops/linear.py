"""Products and linear layers by the native kernels, where those are faster than PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.ops import native
from fastzsl.ops.dispatch import backends, known_backend
from fastzsl.ops.transforms import is_batch_of_gradients, is_plain, is_transformed
from fastzsl.processors import made_by_intel

FAST = ("avx512", "avx512bf16", "amx")
"""Instruction sets whose products are at least as fast as PyTorch's on AMD processors, where PyTorch's product library
(MKL) keeps to AVX2, which is half of what they can do with AVX-512. On Intel's, MKL is up to a fifth faster."""
LEAST = 1_500_000
"""Multiply-adds, some ten microseconds; below, the call itself takes too large a part."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """y = x Wᵀ + b, as `torch.nn.functional.linear`, which computes it unless the native product is faster.

    Args:
        x: (B, k).
        weight: (n, k). bias: (n,) or None.
        backend: as of `fastzsl.ops.attended_scores`; "eager" and "triton" always use PyTorch's, and so does "auto" on
            processors of Intel.

    Returns:
        (B, n). Derivatives of any order run on the native product too.
    """
    if _serves(x, weight, bias, backend):
        y: Tensor = _Product.apply(x, weight.mT, bias)  # type: ignore[no-untyped-call]
        return y
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`: the same parameters, the same start."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def _serves(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> bool:
    tensors = (x, weight, bias)
    if not is_plain(tensors) or x.ndim != 2 or x.shape[0] * weight.numel() < LEAST:
        return False
    if any(t is not None and (t.dtype != torch.float32 or not t.is_cpu) for t in tensors):
        return False
    if torch.is_autocast_enabled("cpu") or is_transformed(*tensors):
        return False
    chosen = known_backend(backend)
    if chosen not in ("auto", "native") or not backends()["native"] or (chosen == "auto" and made_by_intel()):
        return False
    return native.loaded_module().isa() in FAST


class _Product(torch.autograd.Function):
    """a b + bias. The gradients are products too: da = g bᵀ, db = aᵀ g, and the sum of g's rows."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        return native.product(a, b, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        needs = ctx.needs_input_grad
        d_a = _product_like(a, grad, b.mT) if needs[0] else None
        d_b = _product_like(b, a.mT, grad) if needs[1] else None
        return d_a, d_b, grad.sum(0) if needs[2] else None


def _product_like(wanted: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a b with the memory layout of `wanted`: optimisers take several times as long for a transposed gradient."""
    return _product(a, b) if wanted.stride(1) == 1 else _product(b.mT, a.mT).mT


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b, differentiable if gradients of gradients are wanted."""
    if is_batch_of_gradients(a, b) or is_transformed(a, b):
        return torch.mm(a, b)
    if torch.is_grad_enabled():
        found: Tensor = _Product.apply(a, b, None)  # type: ignore[no-untyped-call]
        return found
    return native.product(a, b)
