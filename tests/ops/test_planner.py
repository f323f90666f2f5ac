"""The planner picks the order with the fewest multiply-adds, and its counts are the true ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastzsl.ops import ORDERS, eager, plan_scores, score_costs
from fastzsl.ops.planner import INPUTS, needed_gradients


@pytest.mark.parametrize(
    ("shape", "similarity", "order"),
    [
        ((32, 49, 200, 2048, 312), "dot", "prototype"),  # CUB, all classes
        ((32, 49, 200, 2048, 312), "cosine", "project"),
        ((16, 49, 717, 2048, 102), "dot", "project"),  # SUN
        ((64, 49, 150, 2048, 312), "dot", "prototype"),  # CUB, seen classes
        ((1, 49, 2, 512, 300), "cosine", "attend"),  # few classes: attend, then decode each
    ],
)
def test_choice_for_known_shapes(shape: tuple[int, ...], similarity: str, order: str) -> None:
    assert plan_scores(*shape, similarity).order == order


def test_costs_of_the_design_table() -> None:
    """CUB with 200 classes: 168 M, 54 M and 40 M multiply-adds an image."""
    costs = score_costs(1000, 49, 200, 2048, 312, "dot")
    assert [round(costs[order] / 1e9) for order in ORDERS] == [168, 54, 40]
    costs = score_costs(1000, 49, 717, 2048, 102, "dot")
    assert [round(costs[order] / 1e9) for order in ORDERS] == [294, 86, 144]


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_chosen_order_is_never_dearer_than_another(similarity: str) -> None:
    for shape in itertools.product((1, 64), (1, 49), (2, 40, 700), (64, 2048), (4, 20, 1000)):
        plan = plan_scores(*shape, similarity)
        assert plan.costs[plan.order] == min(plan.costs.values())


EAGER_ORDERS = [(similarity, order) for similarity, orders in eager.ORDERS.items() for order in orders]


@pytest.mark.parametrize(("similarity", "order"), EAGER_ORDERS)
def test_costs_are_what_pytorch_counts(similarity: str, order: str) -> None:
    """PyTorch counts matrix products only, so elementwise sums (of order Cm) may be missing."""
    B, T, C, d, m = 3, 49, 20, 64, 12
    inputs = [torch.randn(s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m))]
    counted = count(lambda: eager.attended_scores(*inputs, similarity=similarity, order=order))  # type: ignore[misc]
    claimed = score_costs(B, T, C, d, m, similarity)[order]
    assert 0 <= claimed - counted + C * m <= 3 * B * C * m


def count(function: Callable[[], torch.Tensor]) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(("similarity", "order"), EAGER_ORDERS)
@pytest.mark.parametrize("needed", itertools.product((False, True), repeat=5))
def test_costs_of_training_are_what_pytorch_counts(
    similarity: str, order: str, needed: tuple[bool, ...]
) -> None:
    """Backward counted exactly, whatever needs a gradient, but for vectors (the bias: B T m at most)."""
    B, T, C, d, m = 3, 49, 20, 64, 12
    inputs = [torch.randn(s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m))]
    for tensor, needs in zip(inputs, needed):
        tensor.requires_grad_(needs)
    gradients = needed_gradients(*inputs)
    assert gradients == tuple(itertools.compress(INPUTS, needed))
    if not gradients:
        return
    forward = score_costs(B, T, C, d, m, similarity)[order]
    claimed = score_costs(B, T, C, d, m, similarity, gradients)[order] - forward
    scores = eager.attended_scores(*inputs, similarity=similarity, order=order)  # type: ignore[misc]
    counted = count(scores.sum().backward)  # type: ignore[arg-type]
    if (similarity, order) == ("dot", "prototype") and "class_embeddings" in gradients:
        counted -= C * m * ("decoder_bias" in gradients)
    assert abs(claimed - counted) <= 3 * C * m


def test_training_takes_the_order_that_is_cheapest_with_its_gradients() -> None:
    """Seen classes of FLO at 448 pixels, frozen regions: decoding each class costs least only without gradients."""
    shape = (64, 98, 71, 1280, 1024)
    gradients = ("queries", "decoder_weight", "decoder_bias", "class_embeddings")
    assert plan_scores(*shape).order == "attend"
    assert plan_scores(*shape, gradients=gradients).order == "project"
    made_again = score_costs(*shape, "cosine", gradients, remakes=True)
    kept = score_costs(*shape, "cosine", gradients)
    assert made_again["attend"] - kept["attend"] == 64 * 71 * 1280 * 1024
    assert made_again["project"] - kept["project"] == 2 * 64 * 98 * 71 * 1024


def test_without_gradient_mode_nothing_is_prepared() -> None:
    weight = torch.zeros(2, requires_grad=True)
    with torch.no_grad():
        assert needed_gradients(weight, weight, weight, None, weight) == ()


def test_only_offered_orders_are_considered() -> None:
    assert plan_scores(32, 49, 200, 2048, 312, "dot", orders=("attend",)).order == "attend"
    assert list(plan_scores(2, 3, 4, 5, 6, "dot").costs) == list(ORDERS)
    assert list(plan_scores(2, 3, 4, 5, 6, "cosine").costs) == ["attend", "project"]
