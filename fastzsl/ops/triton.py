"""Backend "triton": the kernels of `fastzsl.kernels` on a GPU, or on the CPU in Triton's interpreter for tests.

With TRITON_INTERPRET=1 set before Triton is first imported, CPU tensors are accepted. This is slow. It is meant for
tests of the indexing and the algebra.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops.compiling import assume_constant_result
from fastzsl.ops.dispatch import Call

ORDERS: dict[str, tuple[str, ...]] = {"dot": ("prototype", "project"), "cosine": ("project", "attend")}

REMAKES_DECODED = True  # the backward pass computes decoded features again, see `planner.score_costs`

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_REGIONS = 16_384  # a row of attention is one tile of the backward kernels
_MOST_OFFSETS = 2**31 - 1  # offsets within one program's images are 32 bits wide


def missing() -> list[str]:
    """Why this machine cannot run Triton kernels at all; empty if it can."""
    if importlib.util.find_spec("triton") is None:
        return ["Triton is not installed (pip install triton; Linux only)"]
    if importlib.util.find_spec("fastzsl.kernels") is None:
        return ["fastzsl.kernels is not installed"]
    if _interpreted() or torch.cuda.is_available():
        return []
    return ["PyTorch sees no CUDA or ROCm GPU (for tests on the CPU set TRITON_INTERPRET=1)"]


def refuses(call: Call) -> list[str]:
    """Why this backend cannot run a call; empty if it can."""
    reasons = []
    if call.dtype not in _DTYPES:
        reasons.append(f"dtype is {call.dtype}; wanted float32, float16 or bfloat16")
    if _interpreted():
        if call.device.type != "cpu":
            reasons.append(f"device is {call.device}; in the interpreter (TRITON_INTERPRET=1) wanted cpu")
    elif call.device.type != "cuda":
        reasons.append(f"device is {call.device}; wanted cuda")
    elif _too_old(call.device):
        reasons.append(f"{call.device} is older than compute capability 8.0")
    if call.T > _MOST_REGIONS:
        reasons.append(f"regions has T={call.T}; wanted at most {_MOST_REGIONS}")
    if 8 * call.T * max(call.C, call.d, call.m) > _MOST_OFFSETS:
        reasons.append(f"T={call.T} times C={call.C} or d={call.d} passes the kernels' 32-bit offsets")
    return reasons


def slower(call: Call) -> str | None:
    """A reason for "auto" to prefer plain PyTorch, or None. No crossover has been measured on a GPU yet."""
    if _interpreted():
        return "Triton's interpreter is for tests"
    if call.op == "prepare_regions":
        return None
    if call.dtype == torch.float32 and not _tf32():
        return "float32 without TF32 uses no tensor cores, and cuBLAS has the better kernels for that"
    return None


def attention_forward(
    regions: Tensor, queries: Tensor, scale: float, return_attention: bool
) -> tuple[Tensor, Tensor]:
    """(attended (B, C, d), attention (B, C, T) or empty)."""
    launch = _launch()
    return launch.attend(regions, queries, regions, None, scale, "attend", return_attention)


def attention_backward(
    grad_attended: Tensor,
    grad_attention: Tensor | None,
    regions: Tensor,
    queries: Tensor,
    attention: Tensor,
    scale: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of (regions, queries), empty where `needs` says False."""
    from fastzsl.kernels import gradients

    return gradients.attention_gradients(
        grad_attended, grad_attention, regions, queries, attention, scale, needs
    )


def scores_forward(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float,
    order: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(scores (B, C), attention (B, C, T), values); the last two empty unless `save`. See the orders in
    `planner`."""
    launch = _launch()
    empty = launch.empty((0,), regions)
    if order == "prototype":
        prototypes = class_embeddings @ decoder_weight
        if decoder_bias is None:
            offsets = regions.new_zeros(class_embeddings.shape[0])
        else:
            offsets = class_embeddings @ decoder_bias
        return launch.prototype_scores(regions, queries, prototypes, offsets, scale, save)
    if order == "project":
        values = F.linear(regions, decoder_weight, decoder_bias).contiguous()
        scores, attention = launch.attend(regions, queries, values, class_embeddings, scale, similarity, save)
        return scores, attention, values if save else empty
    attended, attention = launch.attend(regions, queries, regions, None, scale, "attend", save)
    decoded = F.linear(attended, decoder_weight, decoder_bias).float()
    embeddings = class_embeddings.float()
    scores = (decoded * embeddings).sum(-1)
    if similarity == "cosine":
        scores /= decoded.norm(dim=-1).clamp_min(1e-12) * embeddings.norm(dim=-1).clamp_min(1e-12)
    return scores.to(regions.dtype), attention, attended if save else empty


def scores_backward(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    attention: Tensor,
    values: Tensor,
    similarity: str,
    scale: float,
    order: str,
    needs: list[bool],
) -> tuple[Tensor, ...]:
    """Gradients of the five tensors in order, empty where `needs` says False."""
    from fastzsl.kernels import gradients

    inputs = (regions, queries, decoder_weight, decoder_bias, class_embeddings)
    if order == "prototype":
        found = gradients.prototype_gradients(grad_scores, *inputs, attention, values, scale, needs)
    elif order == "project":
        found = gradients.projected_gradients(
            grad_scores, *inputs, attention, values, similarity, scale, needs
        )
    else:
        found = gradients.attended_gradients(
            grad_scores, *inputs, attention, values, similarity, scale, needs
        )
    return tuple(found)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


# These functions depend only on the machine, so torch.compile does not need to trace them.
@assume_constant_result
def _too_old(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0)


@assume_constant_result
def _tf32() -> bool:
    return torch.backends.cuda.matmul.allow_tf32


def _launch() -> Any:
    from fastzsl.kernels import launch

    return launch
