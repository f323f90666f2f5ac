"""Detect calls under transforms of `torch.func`, with forward-mode tangents, or under tracers.

The kernels are opaque to PyTorch. Their gradients come from a `torch.autograd.Function`, which works in reverse mode
only. For all other derivatives every backend differentiates the eager formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN = (Tensor, nn.Parameter)


def is_transformed(*tensors: object) -> bool:
    """Whether a `torch.func` transform is active (grad, vjp, jvp, vmap, ...), or a tensor carries a tangent."""
    if torch._C._are_functorch_transforms_active():
        return True
    # Outside `forward_ad.dual_level` there are no tangents.
    if getattr(forward_ad, "_current_level", 0) < 0 or torch.compiler.is_compiling():
        return False
    return any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def is_batch_of_gradients(*grads: Tensor | None) -> bool:
    """Whether autograd runs a backward pass once for many upstream gradients, as with `is_grads_batched`."""
    if torch.compiler.is_compiling():
        return False
    return any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads)


def is_plain(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether only the result of a kernel is needed: ordinary tensors, and no compiler or tracer.

    Such a call does not need `torch.library`, whose overhead is larger than the time of a small kernel.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or any(t is not None and type(t) not in _PLAIN for t in tensors)
    )
