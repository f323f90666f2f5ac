"""Cosines where the decoded regions of an image nearly cancel: what "auto" picks, and every order of eager, stays
within the bound that `eager.attended_scores` states."""

from __future__ import annotations

import functools

import pytest
from cancelling import RHOS, allowed_ratio, cancelling, worst_ratio

from fastzsl.ops import attended_scores, eager, native

ORDERS = {
    "auto": attended_scores,
    **{order: functools.partial(eager.attended_scores, order=order) for order in eager.ORDERS["cosine"]},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("shape", [(4, 48, 60, 64, 300), (2, 12, 200, 48, 512), (4, 16, 64, 1024, 32)])
def test_scores_and_gradients(shape: tuple[int, ...], rho: float, order: str, seed: int) -> None:
    ratio, name = worst_ratio(ORDERS[order], rho, *shape, draws=3)
    print(f"{name}: {ratio:.2f} times plain PyTorch's error")
    if order == "auto" and native.missing():
        order = "project"  # eager's, for the shapes here
    assert ratio <= allowed_ratio(order, rho), name


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize(
    "shape", [(16, 2, 2, 2048, 64), (8, 2, 4, 1280, 300), (8, 4, 4, 512, 32), (16, 4, 1, 2048, 20)]
)
def test_few_classes(shape: tuple[int, ...], rho: float, seed: int) -> None:
    ratio, name = worst_ratio(attended_scores, rho, *shape, draws=10)
    print(f"{name}: {ratio:.2f} times plain PyTorch's error")
    assert ratio <= 2, name


@pytest.mark.parametrize("order", ORDERS)
def test_where_nothing_but_rounding_is_left_scores_are_cosines_all_the_same(order: str, seed: int) -> None:
    scores = ORDERS[order](*cancelling(0.0, 4, 48, 60, 64, 300))
    assert scores.isfinite().all()
    assert scores.abs().max() <= 1 + 1e-5
