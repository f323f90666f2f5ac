"""Calls too large for one block of classes, and regions that no single stride runs through."""

from __future__ import annotations

import pytest
import torch
from native_inputs import Inputs, error, make
from torch import Tensor

from fastzsl.ops import attended_scores, native, reference

ORDERS = [(similarity, order) for similarity, orders in native.ORDERS.items() for order in orders]


def scores_and_gradients(scores: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view_as(scores)
    return [scores, *torch.autograd.grad((scores * weights).sum(), inputs)]


# The second has several blocks of classes, the third several blocks of steps in the products with embeddings.
@pytest.mark.parametrize(
    "shape", [(6, 9, 120, 20, 70), (4, 50, 700, 40, 230), (8, 49, 300, 64, 1100)], ids=str
)
@pytest.mark.parametrize("layout", ["contiguous", "T contiguous", "every other image"])
def test_public_scores_and_gradients(
    isa: str, shape: tuple[int, int, int, int, int], layout: str, seed: int
) -> None:
    inputs = make(*shape, t_contiguous=layout == "T contiguous", bias=layout != "T contiguous")
    if layout == "every other image":
        inputs = every_other(inputs)
    exact = inputs.double()
    eager = scores_and_gradients(reference.attended_scores(*inputs), inputs.present())
    truth = scores_and_gradients(reference.attended_scores(*exact), exact.present())
    got = scores_and_gradients(attended_scores(*inputs, backend="native"), inputs.present())
    for number, (ours, theirs, right) in enumerate(zip(got, eager, truth)):
        assert error(ours, right) <= 2 * error(theirs, right) + 2**-24, number


def every_other(inputs: Inputs) -> Inputs:
    B, T, d = inputs.regions.shape
    twice = torch.full((2 * B, T, d), float("nan"))
    twice[::2] = inputs.regions.detach()
    return inputs._replace(regions=twice[::2].requires_grad_())


@pytest.mark.parametrize(("similarity", "order"), ORDERS)
def test_several_blocks_of_classes_in_the_backward_pass(similarity: str, order: str, seed: int) -> None:
    """Gradients of a block's logits take 64 MiB at most: here several blocks, whose parts of dX, dW, db are added."""
    inputs = make(16, 196, 2800, 8, 12)
    truth = scores_and_gradients(reference.attended_scores(*inputs, similarity=similarity), inputs.present())
    with torch.no_grad():
        scores, *saved = native.scores_forward(*inputs, similarity, 1.0, order, True)
        upstream = torch.linspace(-1, 2, scores.numel()).view_as(scores)
        got = native.scores_backward(upstream, *inputs, *saved, similarity, 1.0, order, [True] * 5)
    for name, ours, right in zip(("scores", *"XHWbK"), (scores, *got), truth):
        assert error(ours, right) < 1e-5, name
