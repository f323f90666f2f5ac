"""The softmax classifier is the minimum of a convex loss, by either road, on any machine the same."""

from __future__ import annotations

import pytest
import torch

from fastzsl.methods.engines.softmax import (
    LinearSoftmax,
    _loss_and_gradient,
    fit_softmax,
    fit_softmax_by_adam,
    softmax_loss,
)


def drawn(classes: int = 4, images: int = 60, size: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(images) % classes
    means = torch.randn(classes, size, dtype=torch.float64)
    return means[labels] + torch.randn(images, size, dtype=torch.float64), labels


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_gradient_is_the_derivative_of_the_loss(seed: int, penalty: float) -> None:
    features, labels = drawn()
    weight = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    loss = softmax_loss(LinearSoftmax(weight, bias), features, labels, penalty)
    wanted = torch.autograd.grad(loss, [weight, bias])
    found, *gradient = _loss_and_gradient(
        LinearSoftmax(weight.detach(), bias.detach()), features, labels, penalty
    )
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(tuple(gradient), wanted)


def test_gradient_vanishes_at_the_minimum_and_every_step_from_it_rises(seed: int) -> None:
    features, labels = drawn()
    found = fit_softmax(features, labels, 4, 1e-2, tolerance=1e-9)
    lowest, *gradient = _loss_and_gradient(found, features, labels, 1e-2)
    # A line search cannot see a fall below the rounding of the loss, where the gradient is some 1e-8.
    assert max(float(part.abs().max()) for part in gradient) < 1e-6
    for _ in range(20):
        moved = LinearSoftmax(*(part + 1e-2 * torch.randn_like(part) for part in found))
        assert softmax_loss(moved, features, labels, 1e-2) > lowest


def test_another_start_leads_to_the_same_minimum(seed: int) -> None:
    features, labels = drawn()
    start = LinearSoftmax(torch.randn(4, 7, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    first = fit_softmax(features, labels, 4, 1e-2, tolerance=1e-9)
    second = fit_softmax(features, labels, 4, 1e-2, tolerance=1e-9, start=start)
    # At a distance of D from the minimum the gradient is about penalty · D, and it is some 1e-8 at the end.
    torch.testing.assert_close(first.weight, second.weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        first.log_probabilities(features), second.log_probabilities(features), atol=1e-3, rtol=0
    )


def test_float32_agrees_with_float64(seed: int) -> None:
    features, labels = drawn()
    wide = fit_softmax(features, labels, 4, 1e-2, tolerance=1e-9)
    narrow = fit_softmax(features.float(), labels, 4, 1e-2)
    assert narrow.weight.dtype == torch.float32
    torch.testing.assert_close(
        narrow.log_probabilities(features.float()).double(),
        wide.log_probabilities(features),
        atol=1e-2,
        rtol=1e-2,
    )


def test_adam_comes_near_the_minimum_and_repeats_bit_for_bit(seed: int) -> None:
    features, labels = drawn()
    settings = {"epochs": 300, "batch_size": 16, "lr": 1e-2, "seed": 5}
    first = fit_softmax_by_adam(features, labels, 4, 1e-1, **settings)  # type: ignore[arg-type]
    torch.manual_seed(99)
    second = fit_softmax_by_adam(features, labels, 4, 1e-1, **settings)  # type: ignore[arg-type]
    assert torch.equal(first.weight, second.weight)
    lowest = softmax_loss(fit_softmax(features, labels, 4, 1e-1), features, labels, 1e-1)
    assert softmax_loss(first, features, labels, 1e-1) < lowest + 1e-2


def test_log_probabilities_sum_to_one(seed: int) -> None:
    features, labels = drawn()
    found = fit_softmax_by_adam(features, labels, 4, epochs=1, batch_size=7, lr=1e-2, seed=0)
    assert found.log_probabilities(features).shape == (60, 4)
    torch.testing.assert_close(found.log_probabilities(features).exp().sum(1), torch.ones(60).double())
