"""The workloads: shapes of the field's data sets, and the goals of the native kernels for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench import rivals
from fastzsl.ops import attended_scores, dense_attention, reference
from fastzsl.ops.planner import plan_scores


class Case(NamedTuple):
    """One row of the table of goals."""

    name: str
    op: str
    B: int
    C: int
    m: int
    similarity: str = "dot"
    dtype: torch.dtype = torch.float32
    backward: str = ""
    """"" forward only, "parameters" with the regions frozen, "all"."""
    T: int = 49
    d: int = 2048
    goals: tuple[tuple[str, float], ...] = ()
    """(quantity, lower limit): "peak" is the share of the measured peak; the others are ratios of times."""

    @property
    def operations(self) -> float:
        """Floating-point operations, two for a multiply-add, in the planner's order; backward by hand."""
        B, T, C, d, m = self.B, self.T, self.C, self.d, self.m
        if self.op == "dense_attention":
            return 2.0 * B * T * C * d * (6 if self.backward else 2)
        costs = plan_scores(B, T, C, d, m, self.similarity).costs
        forward = min(costs.values())
        if not self.backward:
            return 2.0 * forward
        # Prototypes, frozen regions: dH and dP (TCd each), dW = K^T dP and dK = dP W^T (Cmd each).
        return 2.0 * (forward + B * 2 * T * C * d + 2 * C * m * d)


CASES = (
    Case("scores, f32, dot, CUB-all", "scores", 32, 200, 312, goals=(("peak", 0.75), ("naive", 20), ("rewritten", 2))),
    Case("scores, f32, cosine, CUB-all", "scores", 32, 200, 312, "cosine", goals=(("naive", 10),)),
    # Class embeddings from texts are longer than a small backbone's features (m > d), so decoding costs most here.
    Case("scores, f32, cosine, C=1000, d=384, m=1024", "scores", 32, 1000, 1024, "cosine", d=384),
    Case("scores, f32, dot, SUN-all", "scores", 32, 717, 102, goals=(("peak", 0.70), ("naive", 15))),
    Case(
        "scores, bf16, dot, CUB-all", "scores", 32, 200, 312, dtype=torch.bfloat16, goals=(("peak", 0.55), ("f32", 1.6))
    ),
    Case(
        "scores, f32, dot, CUB-seen, forward + backward, frozen regions", "scores", 64, 150, 312,
        backward="parameters", goals=(("naive", 8), ("rewritten", 1.8)),
    ),
    Case("dense_attention, f32, CUB-all", "dense_attention", 32, 200, 312, goals=(("best", 1.8), ("peak", 0.5))),
    Case(
        "dense_attention, f32, CUB-all, forward + backward", "dense_attention", 32, 200, 312,
        backward="all", goals=(("best", 1.5),),
    ),
    Case("scores, f32, dot, B=1, C=10, d=512", "scores", 1, 10, 85, d=512, goals=(("best", 1),)),
)  # fmt: skip


def inputs_of(case: Case) -> tuple[Tensor, ...]:
    """Seeded inputs like those of a model; leaf tensors that require gradients if the case needs them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    B, T, C, d, m = case.B, case.T, case.C, case.d, case.m
    tensors = [normal(B, T, d).relu(), normal(C, d) / d**0.5]
    if case.op == "scores":
        tensors += [normal(m, d) / d**0.5, normal(m), normal(C, m)]
    tensors = [t.to(case.dtype) for t in tensors]
    for i, t in enumerate(tensors):
        t.requires_grad_(case.backward == "all" or (case.backward == "parameters" and i > 0))
    return tuple(tensors)


def contestants(case: Case, inputs: tuple[Tensor, ...]) -> dict[str, Callable[[], list[Tensor]]]:
    """The native backend first, then "auto" if it may differ, then all rivals; each returns result and gradients."""
    if case.op == "scores":
        similarity = case.similarity

        def by(backend: str) -> rivals.Function:
            return lambda *t: attended_scores(*t, similarity=similarity, backend=backend)  # type: ignore[arg-type]

        functions = {"native": by("native"), "auto": by("auto")} | rivals.scores_rivals(similarity)
        upstream_shape: tuple[int, ...] = (case.B, case.C)
    else:
        functions = {"native": lambda *t: dense_attention(*t, backend="native")} | rivals.attention_rivals()
        upstream_shape = (case.B, case.C, case.d)
    if not case.backward:

        def plain(function: rivals.Function) -> Callable[[], list[Tensor]]:
            return lambda: [function(*inputs)]

        return {name: plain(f) for name, f in functions.items()}
    upstream = torch.randn(upstream_shape, generator=torch.Generator().manual_seed(1)).to(case.dtype)
    return {name: rivals.with_backward(f, inputs, upstream) for name, f in functions.items()}


def truth_of(case: Case, inputs: tuple[Tensor, ...]) -> Tensor:
    """The reference in float64."""
    exact = tuple(t.detach().double() for t in inputs)
    if case.op == "scores":
        return reference.attended_scores(*exact, similarity=case.similarity)
    attended = reference.dense_attention(*exact)
    assert isinstance(attended, Tensor)
    return attended
