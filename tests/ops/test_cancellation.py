"""Cosines where the decoded regions of an image nearly cancel: what "auto" picks stays as exact as plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastzsl.ops import attended_scores, reference


def cancelling(share: float, B: int, T: int, C: int, d: int, m: int) -> tuple[Tensor, ...]:
    """Pairs of opposite regions and a rest that all have in common: |e| is about `share` of a region's |v|."""
    half = torch.randn(B, T // 2, d)
    regions = torch.cat([half, -half], 1)[:, torch.randperm(T // 2 * 2)] + share * torch.randn(B, 1, d)
    return regions, torch.randn(C, d) * 1e-3, torch.randn(m, d) / d**0.5, torch.zeros(m), torch.randn(C, m)


@pytest.mark.parametrize("share", [1.0, 0.1, 0.01, 0.0])
@pytest.mark.parametrize("shape", [(4, 48, 60, 64, 300), (2, 12, 200, 48, 512)])
def test_scores_and_gradients(shape: tuple[int, ...], share: float, seed: int) -> None:
    """m > d + T, where prototypes with lengths from a Gram matrix would cost least. At a share of zero nothing is left
    but rounding, and no error can be told: the scores are cosines all the same."""
    inputs = [t.requires_grad_() for t in cancelling(share, *shape)]
    upstream = torch.randn(shape[0], shape[2])

    def run(function, tensors: list[Tensor]) -> list[Tensor]:  # type: ignore[no-untyped-def]
        scores = function(*tensors, similarity="cosine")
        grads = torch.autograd.grad((scores * upstream.to(scores.dtype)).sum(), tensors)
        return [scores.detach(), *grads]

    found, plain = run(attended_scores, inputs), run(reference.attended_scores, inputs)
    assert found[0].isfinite().all()
    assert found[0].abs().max() <= 1 + 1e-5
    if share == 0:
        return
    truth = run(reference.attended_scores, [t.detach().double().requires_grad_() for t in inputs])
    # Decoding before pooling rounds each v: up to 3.3 times plain PyTorch's error where pooling cancels to a hundredth.
    for ours, theirs, exact in zip(found, plain, truth):
        error, allowed = ((x - exact).norm() / exact.norm() for x in (ours, theirs))
        assert error <= (5 if share < 0.1 else 2.5) * allowed + 1e-7
