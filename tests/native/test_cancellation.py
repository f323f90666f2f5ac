"""The cosine where the decoded regions of an image nearly cancel in e = sum_t a_t v_t.

Every order that is offered keeps the error within twice that of plain PyTorch, forward and backward. Order "project"
makes e again, and dW by other products, where single v_t would be rounded before they cancel (csrc/ops/cancelling.hpp).
"""

from __future__ import annotations

import pytest
import torch
from native_inputs import Inputs, error
from torch import Tensor

from fastzsl.ops import native, reference

B, T, C, d, m = 4, 48, 70, 40, 60


def cancelling(ratio: float, place: str) -> Inputs:
    """Inputs whose attended, decoded features are about `ratio` times as long as the decoded regions.

    "regions": the regions of an image sum to little. "bias": decoding takes away what all regions have in common.
    """
    regions = torch.randn(B, T, d)
    regions -= regions.mean(1, keepdim=True)
    regions += ratio * torch.randn(B, 1, d)
    queries = 0.1 * ratio * torch.randn(C, d)
    weight, classes = torch.randn(m, d) / d**0.5, torch.randn(C, m)
    bias = None
    if place == "bias":
        common = torch.randn(d)
        regions += common
        bias = -(weight @ common)
    leaves = [None if t is None else t.requires_grad_() for t in (regions, queries, weight, bias, classes)]
    return Inputs(*leaves)  # type: ignore[arg-type]


def scores_and_gradients(inputs: Inputs, upstream: Tensor) -> list[Tensor]:
    scores = reference.attended_scores(*inputs)
    return [scores, *torch.autograd.grad(scores, inputs.present(), upstream.to(scores.dtype))]


def ours(inputs: Inputs, order: str, upstream: Tensor) -> list[Tensor]:
    with torch.no_grad():
        scores, *saved = native.scores_forward(*inputs, "cosine", 1.0, order, True)
        grads = native.scores_backward(
            upstream, *inputs, *saved, "cosine", 1.0, order, [t is not None for t in inputs]
        )
    return [scores, *(grad for grad, t in zip(grads, inputs) if t is not None)]


@pytest.mark.parametrize("order", native.ORDERS["cosine"])
@pytest.mark.parametrize("place", ["regions", "bias"])
@pytest.mark.parametrize("ratio", [1.0, 0.1, 0.01, 1e-4])
def test_error_is_at_most_twice_plain_pytorchs(
    isa: str, ratio: float, place: str, order: str, seed: int
) -> None:
    inputs, upstream = cancelling(ratio, place), torch.randn(B, C)
    truth = scores_and_gradients(inputs.double(), upstream)
    eager = scores_and_gradients(inputs, upstream)
    names = ["scores", *(name for name, t in zip("XHWbK", inputs) if t is not None)]
    for name, got, theirs, right in zip(names, ours(inputs, order, upstream), eager, truth):
        print(f"{name}: {error(got, right):.2e}, plain PyTorch {error(theirs, right):.2e}")
        assert error(got, right) <= 2 * error(theirs, right) + 2**-24, name


@pytest.mark.parametrize("order", native.ORDERS["cosine"])
@pytest.mark.parametrize("ratio", [0.1, 0.01, 1e-4, 0.0])
def test_scores_are_cosines(isa: str, ratio: float, order: str, seed: int) -> None:
    scores = ours(cancelling(ratio, "regions"), order, torch.randn(B, C))[0]
    assert scores.isfinite().all()
    assert scores.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("order", native.ORDERS["cosine"])
def test_exact_cancellation_is_as_in_plain_pytorch(isa: str, order: str, seed: int) -> None:
    half = torch.randn(B, d)
    inputs = Inputs(
        torch.stack([half, -half], 1), torch.zeros(C, d), torch.randn(m, d), None, torch.randn(C, m)
    )
    leaves = Inputs(*(None if t is None else t.requires_grad_() for t in inputs))  # type: ignore[arg-type]
    truth = scores_and_gradients(leaves, torch.ones(B, C))
    for got, right in zip(ours(leaves, order, torch.ones(B, C)), truth):
        # Divided by the clamped norm, 1e-12: what cancels exactly in one order leaves a rounding in another.
        assert float((got - right).detach().abs().max()) <= 1e-4 * 1e12
    assert not truth[0].any()
    assert not ours(leaves, order, torch.ones(B, C))[0].any()


def test_the_gram_matrix_is_not_offered() -> None:
    inputs = [t.detach() for t in cancelling(1.0, "bias")]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="prototype"):
        native.scores_forward(*inputs, "cosine", 1.0, "prototype", False)
