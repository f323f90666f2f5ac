"""Inputs of the cosine whose decoded regions cancel in e = sum_t a_t v_t, and the errors that they cause."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastzsl.ops import reference

RHOS = [1.0, 0.5, 0.25, 1e-2, 1e-4, 1e-7]


def cancelling(rho: float, B: int, T: int, C: int, d: int, m: int) -> list[Tensor]:
    """Pairs of opposite regions and a rest that all have in common: |e|^2 is about rho sum_t a_t^2 |v_t|^2.

    Random regions have rho = 1.
    """
    half = torch.randn(B, T // 2, d)
    rest = (rho / T) ** 0.5 * torch.randn(B, 1, d)
    regions = torch.cat([half, -half], 1)[:, torch.randperm(T // 2 * 2)] + rest
    tensors = (
        regions,
        torch.randn(C, d) * 1e-3,
        torch.randn(m, d) / d**0.5,
        torch.zeros(m),
        torch.randn(C, m),
    )
    return [t.requires_grad_() for t in tensors]


def scores_and_gradients(
    function: Callable[..., Tensor], tensors: list[Tensor], upstream: Tensor
) -> list[Tensor]:
    scores = function(*tensors)
    return [scores.detach(), *torch.autograd.grad(scores, tensors, upstream.to(scores.dtype))]


def worst_ratio(
    function: Callable[..., Tensor], rho: float, *shape: int, draws: int = 6
) -> tuple[float, str]:
    """The largest error of the scores and the five gradients, in units of plain PyTorch's, and whose it is.

    Squared errors are summed over several draws of `cancelling(rho, *shape)`: in a single one plain PyTorch's error of
    a few numbers can be small by luck.
    """
    B, _, C, *_ = shape
    found, allowed = [0.0] * 6, [0.0] * 6
    for _ in range(draws):
        inputs, upstream = cancelling(rho, *shape), torch.randn(B, C)
        ours = scores_and_gradients(function, inputs, upstream)
        plain = scores_and_gradients(reference.attended_scores, inputs, upstream)
        doubles = [t.detach().double().requires_grad_() for t in inputs]
        truth = scores_and_gradients(reference.attended_scores, doubles, upstream)
        assert ours[0].isfinite().all()
        assert ours[0].abs().max() <= 1 + 1e-5
        for i, (got, theirs, exact) in enumerate(zip(ours, plain, truth)):
            found[i] += float((got - exact).norm()) ** 2
            allowed[i] += float((theirs - exact).norm() + 1e-7 * exact.norm()) ** 2
    return max(((a / b) ** 0.5, name) for a, b, name in zip(found, allowed, ("scores", *"XHWbK")))


def allowed_ratio(order: str, rho: float) -> float:
    """Eager's order "project" rounds each v_t before they cancel, plain PyTorch their sum: the ratio of the errors is
    at most about 1/sqrt(rho), and ends at that of a sum over d and one over T, roughly sqrt(d/T). Kernels on the CPU
    make such pairs again, and where "auto" takes eager, it takes its order "attend"."""
    return 10.0 if order == "project" and rho < 0.25 else 2.0
