"""The elementwise halves of both backward passes; gradients.py has the large products around them.

Gradients that feed a sum over the batch are written class first, (C, B, T): that sum is then one matrix
product with B T as its inner dimension, in a fixed order and without atomics. One program does BLOCK_R rows
of (class, image).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scores_rows(
    grad_scores, attention, values, gram_mix, grad_logits, grad_values, weighted,
    B, C, stride_gb, stride_gc, scale,
    REGIONS: tl.constexpr, COSINE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """With u_bct = k_c . v_bt, and for the cosine |e_bc|^2 = A G A^T where G = V V^T and `gram_mix` = A G:

    dot      dA = g u                          cosine   dA = g/|e| (u - s/|e| A G)        (k_c of length one)
             dU = A g                                   dU = A g/|e|,  weighted = A g s/|e|^2
    both     dS = scale A (dA - sum_t A dA)
    """
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = rows // B
    r_live = c < C
    b = rows - c * B
    region = tl.arange(0, BLOCK_T)
    live = r_live[:, None] & (region < REGIONS)[None, :]
    batch_first = ((b * C + c) * REGIONS)[:, None] + region[None, :]
    class_first = (rows * REGIONS)[:, None] + region[None, :]

    g = tl.load(grad_scores + b * stride_gb + c * stride_gc, r_live, 0.0).to(tl.float32)
    a = tl.load(attention + batch_first, live, 0.0).to(tl.float32)
    u = tl.load(values + batch_first, live, 0.0).to(tl.float32)
    if COSINE:
        mix = tl.load(gram_mix + batch_first, live, 0.0).to(tl.float32)
        norm = tl.sqrt(tl.maximum(tl.sum(a * mix, 1), 0.0))
        inverse = 1.0 / tl.maximum(norm, 1e-12)
        # Below the clamp the norm is a constant, as in F.normalize: no gradient passes through it.
        pull = tl.where(norm > 1e-12, tl.sum(a * u, 1) * inverse * inverse, 0.0)
        g *= inverse
        u -= pull[:, None] * mix
        weighted_row = a * (g * pull)[:, None]
        tl.store(weighted + batch_first, weighted_row.to(weighted.dtype.element_ty), live)
    grad_value = a * g[:, None]
    # Rounded attention does not sum to one exactly; divided by its sum, the logits' gradient does not drift.
    total = tl.maximum(tl.sum(a, 1), 1e-30)
    mean = tl.sum(a * u, 1) / total
    grad_logit = scale * grad_value * (u - mean[:, None])
    tl.store(grad_values + class_first, grad_value.to(grad_values.dtype.element_ty), live)
    tl.store(grad_logits + class_first, grad_logit.to(grad_logits.dtype.element_ty), live)


@triton.jit
def softmax_rows(
    grad_attention, extra, attention, grad_logits, B, C, scale,
    REGIONS: tl.constexpr, EXTRA: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """dS = scale A (dA - sum_t A dA), with dA = grad_attention + extra: (B, C, T) in, (C, B, T) out."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = rows // B
    r_live = c < C
    b = rows - c * B
    region = tl.arange(0, BLOCK_T)
    live = r_live[:, None] & (region < REGIONS)[None, :]
    batch_first = ((b * C + c) * REGIONS)[:, None] + region[None, :]
    class_first = (rows * REGIONS)[:, None] + region[None, :]

    a = tl.load(attention + batch_first, live, 0.0).to(tl.float32)
    grad = tl.load(grad_attention + batch_first, live, 0.0).to(tl.float32)
    if EXTRA:
        grad += tl.load(extra + batch_first, live, 0.0).to(tl.float32)
    mean = tl.sum(a * grad, 1) / tl.maximum(tl.sum(a, 1), 1e-30)
    grad_logit = scale * a * (grad - mean[:, None])
    tl.store(grad_logits + class_first, grad_logit.to(grad_logits.dtype.element_ty), live)
