"""Pieces that the kernels share: which block a program owns, and the matrix products over the feature axis.

Addresses are a 64-bit base that one program shares (image, class block) plus 32-bit offsets within its tile.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def block_of(program, image_blocks, class_blocks, GROUP: tl.constexpr):
    """(image block, class block) of a program: GROUP image blocks sweep the classes together.

    Programs that run side by side then read the same few images and class rows, so both stay in L2.
    """
    in_group = GROUP * class_blocks
    group = program // in_group
    first = group * GROUP
    height = min(image_blocks - first, GROUP)
    rest = program - group * in_group
    return first + rest % height, rest // height


@triton.jit
def logits_tile(
    regions, x_rows, x_live, queries, h_rows, h_live, D, stride_xd,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """H X^T for BLOCK_C class rows and BLOCK_T region rows, in float32; dead rows give zero."""
    logits = tl.zeros((BLOCK_C, BLOCK_T), tl.float32)
    for start in range(0, D, BLOCK_D):
        k = start + tl.arange(0, BLOCK_D)
        x_at = x_rows[None, :] + (k * stride_xd)[:, None]
        x = tl.load(regions + x_at, (k < D)[:, None] & x_live[None, :], 0.0)
        h = tl.load(queries + h_rows[:, None] + k[None, :], h_live[:, None] & (k < D)[None, :], 0.0)
        logits = tl.dot(h.to(COMPUTE), x.to(COMPUTE), logits, input_precision=PRECISION)
    return logits


@triton.jit
def logits_and_values_tile(
    regions, x_rows, x_live, queries, prototypes, h_rows, h_live, D, stride_xd,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """H X^T and P X^T in one pass over the regions, each float32 (BLOCK_C, BLOCK_T)."""
    logits = tl.zeros((BLOCK_C, BLOCK_T), tl.float32)
    values = tl.zeros((BLOCK_C, BLOCK_T), tl.float32)
    for start in range(0, D, BLOCK_D):
        k = start + tl.arange(0, BLOCK_D)
        x_at = x_rows[None, :] + (k * stride_xd)[:, None]
        x = tl.load(regions + x_at, (k < D)[:, None] & x_live[None, :], 0.0)
        live = h_live[:, None] & (k < D)[None, :]
        h = tl.load(queries + h_rows[:, None] + k[None, :], live, 0.0)
        p = tl.load(prototypes + h_rows[:, None] + k[None, :], live, 0.0)
        x = x.to(COMPUTE)
        logits = tl.dot(h.to(COMPUTE), x, logits, input_precision=PRECISION)
        values = tl.dot(p.to(COMPUTE), x, values, input_precision=PRECISION)
    return logits, values
