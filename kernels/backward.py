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
    grad_scores, attention, values, grad_logits, grad_values, B, C, stride_gb, stride_gc, scale,
    REGIONS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Of s = sum_t A u: dA = g u, dU = A g, dS = scale A (dA - sum_t A dA)."""
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
