"""`prepare_regions` by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastzsl.ops import eager
from fastzsl.ops.native import empty_large, loaded_module, threads_for

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_LARGE = 1 << 20
"""Bytes from which the result gets memory that is used again, because every step makes a new one."""
_WORK = 32
"""Multiply-adds that take as long as to read a number, widen it and take its root."""


def prepare_regions(
    stored: Tensor,
    images: Tensor | None,
    kept: Tensor | None,
    power: float,
    factor: float | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """As `fastzsl.ops.prepare_regions`. Powers other than 1 and 1/2 are taken by PyTorch, after the pass."""
    images, kept = (None if t is None else t.contiguous() for t in (images, kept))
    B = len(stored) if images is None else len(images)
    T, d = stored.shape[1] if kept is None else kept.shape[1], stored.shape[2]
    fused, scale, channels = power in (0.5, 1.0), 1.0, None
    if fused and isinstance(factor, Tensor) and factor.numel() != 1:
        channels = factor.to(torch.float32).contiguous()
    elif fused:
        scale = float(factor)
    made = dtype if fused and dtype in (torch.float32, torch.bfloat16) else torch.float32
    out = empty_large((B, T, d), made, _LARGE)
    loaded_module().prepare(
        (stored.data_ptr(), DTYPES[stored.dtype], *stored.shape, *stored.stride()),
        0 if images is None else images.data_ptr(), 0 if kept is None else kept.data_ptr(), B, T, power == 0.5,
        0 if channels is None else channels.data_ptr(), scale, out.data_ptr(), DTYPES[made],
        threads_for(_WORK * out.numel()),
    )  # fmt: skip
    if not fused:
        out = eager.compress(out, power).mul_(factor)
    return out.to(dtype)
