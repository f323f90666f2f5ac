"""Who else watches a call: transforms of `torch.func`, forward-mode tangents, tracers.

The kernels are opaque to PyTorch. Their gradients come from a `torch.autograd.Function`, which reverse mode knows
and nothing else does. Every other derivative is taken of the eager formulas, by every backend.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN = (Tensor, nn.Parameter)


def is_transformed(*tensors: object) -> bool:
    """Whether a `torch.func` transform is active (grad, vjp, jvp, vmap, ...), or a tensor carries a tangent or is a
    batch of upstream gradients."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():
        return False
    duals = getattr(forward_ad, "_current_level", 0) >= 0  # else there are no tangents
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            if torch._C._functorch.is_legacy_batchedtensor(tensor):
                return True
            if duals and forward_ad.unpack_dual(tensor).tangent is not None:
                return True
    return False


def is_plain(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether nothing but the result of a kernel is wanted: ordinary tensors, and no compiler or tracer.

    Such a call need not go through `torch.library`, which takes longer than a small kernel.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or any(t is not None and type(t) not in _PLAIN for t in tensors)
    )
