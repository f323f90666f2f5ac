"""Attention over the regions, then a mixture of value rows: `dense_attention` and projected scores.

    A_bc = softmax_t(scale h_c . x_bt),   out_bc = sum_t A_bct y_bt

EPILOGUE says what becomes of the mixture. "attend": y = x, and the mixture is stored (X~). "dot" and
"cosine": y = W x + b, and the mixture e_bc stays in registers while k_c . e_bc (over |k_c| |e_bc| for the
cosine) is summed up block by block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import block_of, logits_tile


@triton.jit
def mix_block(
    weight, values, y_rows, y_live, start, DV, stride_yd, block,
    BLOCK_V: tl.constexpr, PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """block plus weight (BLOCK_C, BLOCK_T) times value columns start .. start + BLOCK_V, float32."""
    v = start + tl.arange(0, BLOCK_V)
    y = tl.load(values + y_rows[:, None] + (v * stride_yd)[None, :], y_live[:, None] & (v < DV)[None, :], 0.0)
    return tl.dot(weight, y.to(COMPUTE), block, input_precision=PRECISION)


@triton.jit
def similarity(dotted, e_square, k_square, COSINE: tl.constexpr):
    if COSINE:
        dotted /= tl.maximum(tl.sqrt(e_square), 1e-12) * tl.maximum(tl.sqrt(k_square), 1e-12)
    return dotted


@triton.jit
def attend_one_tile(
    regions, queries, mixed, embeddings, out, attention,
    B, C, D, DV, stride_xb, stride_xt, stride_xd, stride_yb, stride_yt, stride_yd, log2_scale,
    REGIONS: tl.constexpr, SAVE: tl.constexpr, EPILOGUE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """One image of at most BLOCK_T regions against BLOCK_C classes; its attention stays in registers."""
    image_block, class_block = block_of(tl.program_id(0), B, tl.cdiv(C, BLOCK_C), GROUP)
    image = image_block.to(tl.int64)
    region = tl.arange(0, BLOCK_T)
    t_live = region < REGIONS
    first_class = class_block.to(tl.int64) * BLOCK_C
    lane = tl.arange(0, BLOCK_C)
    classes = first_class + lane
    c_live = classes < C

    logits = logits_tile(
        regions + image * stride_xb, region * stride_xt, t_live,
        queries + first_class * D, lane * D, c_live, D, stride_xd,
        BLOCK_C, BLOCK_T, BLOCK_D, PRECISION, COMPUTE,
    )  # fmt: skip
    logits = tl.where(t_live[None, :], logits * log2_scale, float("-inf"))
    weight = tl.exp2(logits - tl.max(logits, 1)[:, None])
    inverse = 1.0 / tl.sum(weight, 1)
    if SAVE:
        both_live = c_live[:, None] & t_live[None, :]
        saved = attention + (image * C + first_class) * REGIONS + (lane * REGIONS)[:, None] + region[None, :]
        tl.store(saved, (weight * inverse[:, None]).to(attention.dtype.element_ty), both_live)

    # Weights of at most one are rounded for the product and divided by their sum after it, in float32.
    weight = weight.to(regions.dtype.element_ty).to(COMPUTE)
    mixed += image * stride_yb
    if EPILOGUE == "attend":
        out += (image * C + first_class) * DV
    else:
        out += image * C
    embeddings += first_class * DV
    rows = (lane * DV)[:, None]
    dotted = tl.zeros((BLOCK_C,), tl.float32)
    e_square = tl.zeros((BLOCK_C,), tl.float32)
    k_square = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, DV, BLOCK_V):
        block = tl.zeros((BLOCK_C, BLOCK_V), tl.float32)
        block = mix_block(
            weight, mixed, region * stride_yt, t_live, start, DV, stride_yd, block,
            BLOCK_V, PRECISION, COMPUTE,
        )  # fmt: skip
        block *= inverse[:, None]
        v = start + tl.arange(0, BLOCK_V)
        live = c_live[:, None] & (v < DV)[None, :]
        if EPILOGUE == "attend":
            tl.store(out + rows + v[None, :], block.to(out.dtype.element_ty), live)
        else:
            k = tl.load(embeddings + rows + v[None, :], live, 0.0).to(tl.float32)
            dotted += tl.sum(block * k, 1)
            if EPILOGUE == "cosine":
                e_square += tl.sum(block * block, 1)
                k_square += tl.sum(k * k, 1)
    if EPILOGUE != "attend":
        score = similarity(dotted, e_square, k_square, EPILOGUE == "cosine")
        tl.store(out + classes, score.to(out.dtype.element_ty), c_live)


@triton.jit
def attend_tiled(
    regions, queries, mixed, embeddings, out, attention, peaks,
    B, C, D, DV, stride_xb, stride_xt, stride_xd, stride_yb, stride_yt, stride_yd, log2_scale,
    REGIONS: tl.constexpr, SAVE: tl.constexpr, EPILOGUE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """One image of any number of regions against BLOCK_C classes: online softmax over region tiles.

    A mixture as wide as d = 2048 cannot wait in registers for the last tile, so the attention of this block
    is parked: in `attention` where the caller wants it (SAVE), else in a scratch row block that each program
    reuses for all its work, small enough to stay in L2. Programs are therefore persistent: program i does
    items i, i + n, i + 2n, ...
    """
    program = tl.program_id(0)
    class_blocks = tl.cdiv(C, BLOCK_C)
    TILES: tl.constexpr = (REGIONS + BLOCK_T - 1) // BLOCK_T
    lane = tl.arange(0, BLOCK_C)
    own_peaks = peaks + program.to(tl.int64) * (TILES * BLOCK_C) + lane
    for item in range(program, B * class_blocks, tl.num_programs(0)):
        image_block, class_block = block_of(item, B, class_blocks, GROUP)
        image = image_block.to(tl.int64)
        first_class = class_block.to(tl.int64) * BLOCK_C
        classes = first_class + lane
        c_live = classes < C
        slot = image * C + first_class if SAVE else program.to(tl.int64) * BLOCK_C
        parked = attention + slot * REGIONS + (lane * REGIONS)[:, None]
        own_mixed = mixed + image * stride_yb

        peak = tl.full((BLOCK_C,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_C,), tl.float32)
        for tile in range(TILES):
            region = tile * BLOCK_T + tl.arange(0, BLOCK_T)
            t_live = region < REGIONS
            logits = logits_tile(
                regions + image * stride_xb, region * stride_xt, t_live,
                queries + first_class * D, lane * D, c_live, D, stride_xd,
                BLOCK_C, BLOCK_T, BLOCK_D, PRECISION, COMPUTE,
            )  # fmt: skip
            logits = tl.where(t_live[None, :], logits * log2_scale, float("-inf"))
            higher = tl.maximum(peak, tl.max(logits, 1))
            weight = tl.exp2(logits - higher[:, None])
            total = total * tl.exp2(peak - higher) + tl.sum(weight, 1)
            peak = higher
            both_live = c_live[:, None] & t_live[None, :]
            tl.store(parked + region[None, :], weight.to(attention.dtype.element_ty), both_live)
            tl.store(own_peaks + tile * BLOCK_C, peak)

        tl.debug_barrier()  # the threads that read a tile back need not be those that wrote it
        for tile in range(TILES):
            region = tile * BLOCK_T + tl.arange(0, BLOCK_T)
            both_live = c_live[:, None] & (region < REGIONS)[None, :]
            final = tl.exp2(tl.load(own_peaks + tile * BLOCK_C) - peak) / total
            weight = tl.load(parked + region[None, :], both_live, 0.0).to(tl.float32)
            weight *= final[:, None]
            tl.store(parked + region[None, :], weight.to(attention.dtype.element_ty), both_live)
        tl.debug_barrier()

        dotted = tl.zeros((BLOCK_C,), tl.float32)
        e_square = tl.zeros((BLOCK_C,), tl.float32)
        k_square = tl.zeros((BLOCK_C,), tl.float32)
        for start in range(0, DV, BLOCK_V):
            block = tl.zeros((BLOCK_C, BLOCK_V), tl.float32)
            for tile in range(TILES):
                region = tile * BLOCK_T + tl.arange(0, BLOCK_T)
                t_live = region < REGIONS
                weight = tl.load(parked + region[None, :], c_live[:, None] & t_live[None, :], 0.0)
                block = mix_block(
                    weight.to(COMPUTE), own_mixed, region * stride_yt, t_live, start, DV, stride_yd, block,
                    BLOCK_V, PRECISION, COMPUTE,
                )  # fmt: skip
            v = start + tl.arange(0, BLOCK_V)
            live = c_live[:, None] & (v < DV)[None, :]
            if EPILOGUE == "attend":
                own_out = out + (image * C + first_class) * DV
                tl.store(own_out + (lane * DV)[:, None] + v[None, :], block.to(out.dtype.element_ty), live)
            else:
                own_embeddings = embeddings + first_class * DV
                k = tl.load(own_embeddings + (lane * DV)[:, None] + v[None, :], live, 0.0).to(tl.float32)
                dotted += tl.sum(block * k, 1)
                if EPILOGUE == "cosine":
                    e_square += tl.sum(block * block, 1)
                    k_square += tl.sum(k * k, 1)
        if EPILOGUE != "attend":
            score = similarity(dotted, e_square, k_square, EPILOGUE == "cosine")
            tl.store(out + image * C + classes, score.to(out.dtype.element_ty), c_live)
        tl.debug_barrier()  # the next item overwrites what this one parked
