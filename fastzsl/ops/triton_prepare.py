"""`prepare_regions` by the Triton kernel, on a GPU or in Triton's interpreter."""

from __future__ import annotations

import torch
from torch import Tensor


def prepare_regions(
    stored: Tensor,
    images: Tensor | None,
    kept: Tensor | None,
    power: float,
    factor: float | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """As `fastzsl.ops.prepare_regions`."""
    from fastzsl.kernels import launch, prepare

    images, kept = (None if t is None else t.contiguous() for t in (images, kept))
    B = len(stored) if images is None else len(images)
    T, d = stored.shape[1] if kept is None else kept.shape[1], stored.shape[2]
    if not isinstance(factor, Tensor):
        factor = torch.full((), factor, device=stored.device)
    factor = (factor.reshape(()) if factor.numel() == 1 else factor[:, 0]).expand(B, d)
    out = launch.empty((B, T, d), stored, dtype if dtype.itemsize <= 4 else torch.float32)
    prepare.prepare(stored, images, kept, power, factor, out)
    return out.to(dtype)
