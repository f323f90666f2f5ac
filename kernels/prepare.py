"""Stored features to regions in one pass: gathered, widened, compressed, scaled.

    out[b, t, :] = factor[b, :] sign(x) |x|^power,   x = stored[images[b], kept[b, t], :]

One program makes BLOCK_T regions of one image and BLOCK_D of their features. Maps whose regions are contiguous, as
conv maps are, are turned by the load.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import on_device

BLOCK_T, BLOCK_D = 16, 64


@triton.jit
def prepare_tile(
    stored, images, kept, factor, out, T, D, power, stride_n, stride_s, stride_d, stride_fb, stride_fd,
    GATHER_IMAGES: tl.constexpr, GATHER_REGIONS: tl.constexpr, ROOT: tl.constexpr, PLAIN: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    t_live, d_live = t < T, d < D
    live = t_live[:, None] & d_live[None, :]
    source = image
    if GATHER_IMAGES:
        source = tl.load(images + image)
    region = t.to(tl.int64)
    if GATHER_REGIONS:
        region = tl.load(kept + image * T + t, t_live, 0)
    channel = d.to(tl.int64)
    at = source * stride_n + (region * stride_s)[:, None] + (channel * stride_d)[None, :]
    x = tl.load(stored + at, live, 0.0).to(tl.float32)
    scale = tl.load(factor + image * stride_fb + channel * stride_fd, d_live, 0.0).to(tl.float32)
    if not PLAIN:
        size = tl.abs(x)
        if ROOT:
            raised = tl.sqrt(size)
        else:  # log2(0) is minus infinity, and its power 0 again
            raised = tl.exp2(power * tl.log2(size))
        x = tl.where(x < 0, -raised, raised)
    y = x * scale[None, :]
    tl.store(out + (image * T + t)[:, None] * D + channel[None, :], y.to(out.dtype.element_ty), live)


def prepare(
    stored: Tensor, images: Tensor | None, kept: Tensor | None, power: float, factor: Tensor, out: Tensor
) -> None:
    """Fill `out` (B, T, d); factor (B, d) or with strides of 0."""
    B, T, D = out.shape
    if out.numel() == 0:
        return
    grid = (B, triton.cdiv(T, BLOCK_T), triton.cdiv(D, BLOCK_D))
    with on_device(stored):
        prepare_tile[grid](
            stored, stored if images is None else images, stored if kept is None else kept, factor, out,
            T, D, power, *stored.stride(), *factor.stride(),
            GATHER_IMAGES=images is not None, GATHER_REGIONS=kept is not None, ROOT=power == 0.5, PLAIN=power == 1,
            BLOCK_T=BLOCK_T, BLOCK_D=BLOCK_D,
        )  # fmt: skip
