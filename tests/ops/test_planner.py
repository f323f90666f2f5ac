"""The planner picks the order with the fewest multiply-adds, and its counts are the true ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastzsl.ops import ORDERS, eager, plan_scores, score_costs


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
    """CUB with 200 classes: 168 M, 54 M and 40 M multiply-adds a picture."""
    costs = score_costs(1000, 49, 200, 2048, 312, "dot")
    assert [round(costs[order] / 1e9) for order in ORDERS] == [168, 54, 40]
    costs = score_costs(1000, 49, 717, 2048, 102, "dot")
    assert [round(costs[order] / 1e9) for order in ORDERS] == [294, 86, 144]


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_chosen_order_is_never_dearer_than_another(similarity: str) -> None:
    for shape in itertools.product((1, 64), (1, 49), (2, 40, 700), (64, 2048), (4, 20, 1000)):
        plan = plan_scores(*shape, similarity)
        assert plan.costs[plan.order] == min(plan.costs.values())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_costs_are_what_pytorch_counts(order: str, similarity: str) -> None:
    """PyTorch counts matrix products only, so elementwise sums (of order Cm) may be missing."""
    B, T, C, d, m = 3, 49, 20, 64, 12
    inputs = [torch.randn(s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m))]
    with FlopCounterMode(display=False) as counter:
        eager.attended_scores(*inputs, similarity=similarity, order=order)  # type: ignore[misc]
    counted = counter.get_total_flops() / 2
    claimed = score_costs(B, T, C, d, m, similarity)[order]
    assert 0 <= claimed - counted + C * m <= 3 * B * C * m


def test_only_offered_orders_are_considered() -> None:
    assert plan_scores(32, 49, 200, 2048, 312, "dot", orders=("attend",)).order == "attend"
