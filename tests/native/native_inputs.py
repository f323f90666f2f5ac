"""Inputs of both ops for the tests of the native backend, and how far a result is from the truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """Arguments of both ops, as leaves."""

    regions: Tensor
    queries: Tensor
    weight: Tensor
    bias: Tensor | None
    classes: Tensor

    def double(self) -> Inputs:
        return Inputs(*(None if t is None else t.detach().double().requires_grad_() for t in self))  # type: ignore[arg-type]

    def present(self) -> list[Tensor]:
        return [t for t in self if t is not None]


def make(
    B: int,
    T: int,
    C: int,
    d: int,
    m: int,
    *,
    dtype: torch.dtype = torch.float32,
    t_contiguous: bool = False,
    bias: bool = True,
) -> Inputs:
    """Inputs as a model makes them: positive features, queries that give logits of order one."""
    regions = torch.randn(B, d, T).mT if t_contiguous else torch.randn(B, T, d)
    tensors = (
        regions.relu(),
        torch.randn(C, d) / d**0.5,
        torch.randn(m, d) / d**0.5,
        torch.randn(m),
        torch.randn(C, m),
    )
    leaves = [t.to(dtype).requires_grad_() for t in tensors]
    return Inputs(leaves[0], leaves[1], leaves[2], leaves[3] if bias else None, leaves[4])


def error(got: Tensor, truth: Tensor) -> float:
    """Relative root-mean-square error."""
    assert got.shape == truth.shape
    got, truth = got.detach().double(), truth.detach().double()
    return float((got - truth).norm() / truth.norm().clamp_min(1e-300))
