"""Forward of `attended_scores` by class prototypes (dot): logits and values in one pass over X.

s_bc = sum_t A_bct (p_c . x_bt + q_c),   A_bc = softmax_t(scale h_c . x_bt),   p = K W,  q = K b
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import block_of, logits_and_values_tile


@triton.jit
def prototype_packed(
    regions, queries, prototypes, offsets, scores, attention, values,
    B, C, D, stride_xb, stride_xt, stride_xd, log2_scale,
    REGIONS: tl.constexpr, IMAGES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """IMAGES whole images, packed without gaps into BLOCK_N columns, against BLOCK_C classes.

    The class rows are read once for all of them, and 245 of 256 columns work for five images of 49 regions,
    where one padded image would leave 15 of 64 idle. Columns of an image are told apart by a mask in the
    softmax.
    """
    image_block, class_block = block_of(tl.program_id(0), tl.cdiv(B, IMAGES), tl.cdiv(C, BLOCK_C), GROUP)
    column = tl.arange(0, BLOCK_N)
    member = column // REGIONS  # which of the packed images; IMAGES and above are the idle columns at the end
    region = column - member * REGIONS
    first = image_block.to(tl.int64) * IMAGES
    x_live = (member < IMAGES) & (first + member < B)
    first_class = class_block.to(tl.int64) * BLOCK_C
    lane = tl.arange(0, BLOCK_C)
    classes = first_class + lane
    c_live = classes < C

    logits, value = logits_and_values_tile(
        regions + first * stride_xb, member * stride_xb + region * stride_xt, x_live,
        queries + first_class * D, prototypes + first_class * D, lane * D, c_live, D, stride_xd,
        BLOCK_C, BLOCK_N, BLOCK_D, PRECISION, COMPUTE,
    )  # fmt: skip
    value += tl.load(offsets + classes, c_live, 0.0).to(tl.float32)[:, None]

    logits *= log2_scale
    peak = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for i in tl.static_range(IMAGES):
        own = (member == i)[None, :]
        peak = tl.where(own, tl.max(tl.where(own, logits, float("-inf")), 1)[:, None], peak)
    # An idle column belongs to no image: its logit is zero, its weight finite, and no sum below contains it.
    weight = tl.exp2(logits - peak)

    norm = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for i in tl.static_range(IMAGES):
        own = (member == i)[None, :]
        total = tl.sum(tl.where(own, weight, 0.0), 1)
        score = tl.sum(tl.where(own, weight * value, 0.0), 1) / total
        live = c_live & (first + i < B)
        tl.store(scores + (first + i) * C + classes, score.to(scores.dtype.element_ty), live)
        if SAVE:
            norm = tl.where(own, (1.0 / total)[:, None], norm)
    if SAVE:
        base = (first * C + first_class) * REGIONS
        at = (member * C * REGIONS + region)[None, :] + (lane * REGIONS)[:, None]
        both_live = c_live[:, None] & x_live[None, :]
        tl.store(attention + base + at, (weight * norm).to(attention.dtype.element_ty), both_live)
        tl.store(values + base + at, value.to(values.dtype.element_ty), both_live)


@triton.jit
def prototype_tiled(
    regions, queries, prototypes, offsets, scores, attention, values, peaks,
    B, C, D, stride_xb, stride_xt, stride_xd, log2_scale,
    REGIONS: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """One image of any number of regions against BLOCK_C classes: online softmax over region tiles.

    With SAVE, each tile's weights are stored relative to the running maximum of its time (kept in `peaks`),
    and are brought to their final scale at the end.
    """
    class_blocks = tl.cdiv(C, BLOCK_C)
    image_block, class_block = block_of(tl.program_id(0), B, class_blocks, GROUP)
    image = image_block.to(tl.int64)
    first_class = class_block.to(tl.int64) * BLOCK_C
    lane = tl.arange(0, BLOCK_C)
    classes = first_class + lane
    c_live = classes < C
    offset = tl.load(offsets + classes, c_live, 0.0).to(tl.float32)
    attention += (image * C + first_class) * REGIONS
    values += (image * C + first_class) * REGIONS
    saved = (lane * REGIONS)[:, None]
    TILES: tl.constexpr = (REGIONS + BLOCK_T - 1) // BLOCK_T
    own_peaks = peaks + (image * class_blocks + class_block) * (TILES * BLOCK_C) + lane

    peak = tl.full((BLOCK_C,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_C,), tl.float32)
    mixed = tl.zeros((BLOCK_C,), tl.float32)
    for tile in range(TILES):
        region = tile * BLOCK_T + tl.arange(0, BLOCK_T)
        t_live = region < REGIONS
        logits, value = logits_and_values_tile(
            regions + image * stride_xb, region * stride_xt, t_live,
            queries + first_class * D, prototypes + first_class * D, lane * D, c_live, D, stride_xd,
            BLOCK_C, BLOCK_T, BLOCK_D, PRECISION, COMPUTE,
        )  # fmt: skip
        value += offset[:, None]
        logits = tl.where(t_live[None, :], logits * log2_scale, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        weight = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(weight, 1)
        mixed = mixed * shrink + tl.sum(weight * value, 1)
        peak = higher
        if SAVE:
            live = c_live[:, None] & t_live[None, :]
            tl.store(attention + saved + region[None, :], weight.to(attention.dtype.element_ty), live)
            tl.store(values + saved + region[None, :], value.to(values.dtype.element_ty), live)
            tl.store(own_peaks + tile * BLOCK_C, peak)
    tl.store(scores + image * C + classes, (mixed / total).to(scores.dtype.element_ty), c_live)
    if SAVE:
        tl.debug_barrier()  # the threads that read a tile back need not be those that wrote it
        for tile in range(TILES):
            region = tile * BLOCK_T + tl.arange(0, BLOCK_T)
            live = c_live[:, None] & (region < REGIONS)[None, :]
            final = tl.exp2(tl.load(own_peaks + tile * BLOCK_C) - peak) / total
            weight = tl.load(attention + saved + region[None, :], live, 0.0).to(tl.float32)
            tl.store(
                attention + saved + region[None, :],
                (weight * final[:, None]).to(attention.dtype.element_ty), live,
            )  # fmt: skip
