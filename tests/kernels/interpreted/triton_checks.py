"""Run every kernel against float64, with poison around and inside all memory that a kernel may touch.

Inputs lie between fences of NaN, so that a load outside them shows in the result. Outputs are filled with
NaN and lie between fences of a fixed number, so that a cell left unwritten and a store outside both show.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import eager, reference

FENCE = 1 << 14
MARK = 12.5
NAMES = ("regions", "queries", "weight", "bias", "embeddings")


class Case(NamedTuple):
    """Shapes in the letters of the ops.

    layout "bdt" is a flattened conv map, "gap" has padding after each row; size multiplies the
    decoder, and so the projected regions.
    """

    B: int
    T: int
    C: int
    d: int
    m: int
    dtype: torch.dtype = torch.float32
    layout: str = "btd"
    scale: float = 0.7
    size: float = 1.0


def fenced(tensor: Tensor) -> Tensor:
    """A copy of a contiguous tensor between two fences of NaN."""
    memory = torch.full((tensor.numel() + 2 * FENCE,), float("nan"), dtype=tensor.dtype)
    memory[FENCE : FENCE + tensor.numel()] = tensor.reshape(-1)
    return memory[FENCE : FENCE + tensor.numel()].view(tensor.shape)


def inputs(case: Case, seed: int) -> list[Tensor]:
    """[regions, queries, weight, bias, embeddings, grad of the scores, of X~, of A]."""
    B, T, C, d, m, dtype, layout, _, size = case
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, spread: float = 1.0) -> Tensor:
        return fenced((torch.randn(shape, generator=g) * spread).to(dtype))

    if layout == "bdt":
        regions = normal(B, d, T).transpose(1, 2)
    elif layout == "gap":
        regions = normal(B, T + 1, d + 5)[:, :T, :d]
    else:
        regions = normal(B, T, d)
    return [
        regions,
        normal(C, d, spread=2 * d**-0.5),
        normal(m, d, spread=size * d**-0.5),
        normal(m, spread=size),
        normal(C, m),
        normal(B, C),
        normal(B, C, d),
        normal(B, C, T),
    ]


class Poison:
    """Stands in for launch.empty; `breaches` lists the fences that a kernel ran over."""

    def __init__(self) -> None:
        self.memories: list[Tensor] = []

    def empty(self, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        size = torch.Size(shape).numel()
        memory = torch.full((size + 2 * FENCE,), MARK, dtype=dtype or like.dtype)
        memory[FENCE : FENCE + size] = float("nan")
        self.memories.append(memory)
        return memory[FENCE : FENCE + size].view(shape)

    def breaches(self) -> list[str]:
        broken = [m for m in self.memories if (m[:FENCE] != MARK).any() or (m[-FENCE:] != MARK).any()]
        return [f"store outside an output of {memory.numel() - 2 * FENCE} numbers" for memory in broken]


def error(found: Tensor, true: Tensor) -> float:
    """Relative RMS error; infinite if anything is NaN."""
    difference = (found.double() - true).norm() / true.norm().clamp_min(1e-30)
    return float("inf") if difference.isnan() else difference.item()


def failures(launch: ModuleType, gradients: ModuleType, case: Case, seed: int, only: str = "") -> list[str]:
    """What is wrong with the kernels of a package on one case: nothing, if they are right.

    The bound for every result is twice the error of eager PyTorch in the same dtype on the same inputs, and
    at least two roundings of the dtype, four in float32, where a luckier order of summation is all that
    differs.
    """
    poison = Poison()
    floor = (4 if case.dtype == torch.float32 else 2) * torch.finfo(case.dtype).eps
    saved = launch.empty, gradients.empty
    launch.empty = gradients.empty = poison.empty
    try:
        wrong = []
        for name, run in CHECKS.items():
            if only in name:
                for what, found, true, plain in run(launch, gradients, case, inputs(case, seed)):
                    bound = max(2 * error(plain, true), floor)
                    if not error(found, true) <= bound:
                        wrong.append(f"{name}: {what} is off by {error(found, true):.1e}, bound {bound:.1e}")
        return wrong + poison.breaches()
    finally:
        launch.empty, gradients.empty = saved


def _gradients(outputs: list[Tensor], leaves: list[Tensor], grads: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, leaves, grads)


def _leaves(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [t.detach().to(dtype).requires_grad_() for t in tensors]


def _compare(names, found, true, plain):
    return [(n, f, t, p) for n, f, t, p in zip(names, found, true, plain)]


def _attention(launch, gradients, case, tensors):
    regions, queries, *_, grad, grad_a = tensors
    results = []
    for dtype in (torch.float64, case.dtype):
        leaves = _leaves([regions, queries], dtype)
        out = reference.dense_attention(*leaves, scale=case.scale, return_attention=True)
        results.append([*out, *_gradients(list(out), leaves, [grad.to(dtype), grad_a.to(dtype)])])
    attended, attention = launch.attend(regions, queries, regions, None, case.scale, "attend", True)
    alone, _ = launch.attend(regions, queries, regions, None, case.scale, "attend", False)
    back = gradients.attention_gradients(grad, grad_a, regions, queries, attention, case.scale, [True, True])
    names = ["attended", "attention", "d regions", "d queries"]
    checks = _compare(names, [attended, attention, *back], *results)
    return checks + [("attended alone", alone, results[0][0], results[1][0])]


def _scores(order, similarity):
    def run(launch, gradients, case, tensors):
        *leaves5, grad, _, _ = tensors
        regions, queries, weight, bias, embeddings = leaves5
        results = []
        for dtype, module in ((torch.float64, reference), (case.dtype, eager)):
            leaves = _leaves(leaves5, dtype)
            extra = {} if module is reference else {"order": order}
            scores = module.attended_scores(*leaves, similarity=similarity, scale=case.scale, **extra)
            results.append([scores, *_gradients([scores], leaves, [grad.to(dtype)])])
        rest = (case.scale, [True] * 5)
        if order == "prototype":
            arguments = (regions, queries, fenced(embeddings @ weight), fenced(embeddings @ bias), case.scale)
            scores, attention, values = launch.prototype_scores(*arguments, True)
            alone = launch.prototype_scores(*arguments, False)[0]
            back = gradients.prototype_gradients(grad, *leaves5, attention, values, *rest)
        else:
            values = fenced(F.linear(regions, weight, bias))
            arguments = (regions, queries, values, embeddings, case.scale, similarity)
            scores, attention = launch.attend(*arguments, True)
            alone = launch.attend(*arguments, False)[0]
            back = gradients.projected_gradients(grad, *leaves5, attention, values, similarity, *rest)
        names = ["scores", *(f"d {name}" for name in NAMES)]
        checks = _compare(names, [scores, *back], *results)
        return checks + [("scores alone", alone, results[0][0], results[1][0])]

    return run


CHECKS = {
    "attention": _attention,
    "prototype dot": _scores("prototype", "dot"),
    "project dot": _scores("project", "dot"),
    "project cosine": _scores("project", "cosine"),
}
