"""A linear softmax classifier. Training is convex; the only random numbers are for the order of the images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.engines.lbfgs import minimise_by_lbfgs
from fastzsl.ops.linear import linear


class LinearSoftmax(NamedTuple):
    """p(c | x) = softmax(W x + b)_c.

    Attributes:
        weight: W (C, d).
        bias: b (C,).
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(B, d) -> (B, C)."""
        return linear(features, self.weight, self.bias)

    def log_probabilities(self, features: Tensor) -> Tensor:
        """(B, d) -> (B, C), rows whose exponentials sum to 1."""
        return self.logits(features).log_softmax(1)


def softmax_loss(
    found: LinearSoftmax, features: Tensor, labels: Tensor, penalty: float | Tensor = 0.0
) -> Tensor:
    """mean cross-entropy + penalty / 2 · |W|², the objective of both trainings; the bias is not penalised.

    Args:
        penalty: one number, or one for each feature (d,).
    """
    return F.cross_entropy(found.logits(features), labels) + 0.5 * (penalty * found.weight.square()).sum()


def fit_softmax(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalty: float | Tensor,
    *,
    steps: int = 200,
    tolerance: float = 1e-5,
    start: LinearSoftmax | None = None,
) -> LinearSoftmax:
    """The minimum of `softmax_loss` by L-BFGS over all images at once.

    Args:
        features: (N, d), float32 or float64; the result has their dtype and device.
        labels: (N,) int64 below `num_classes`.
        penalty: above 0, so that there is one minimum; a number, or one for each feature (d,).
        steps: largest number of L-BFGS steps.
        tolerance: stop if no entry of the gradient is larger.
        start: classifier to begin with, such as the minimum for another penalty; zeros if None.
    """
    return LinearSoftmax(
        *minimise_by_lbfgs(
            start or _zeros(features, num_classes),
            lambda at: _loss_and_gradient(LinearSoftmax(*at), features, labels, penalty),
            steps=steps,
            tolerance=tolerance,
        )
    )


def fit_softmax_by_adam(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalty: float | Tensor = 0.0,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    seed: int,
    start: LinearSoftmax | None = None,
) -> LinearSoftmax:
    """Minimise `softmax_loss` with some epochs of Adam over batches, as the authors of the generative methods do.

    Args:
        features: (N, d), float32 or float64; the result has their dtype and device.
        labels: (N,) int64 below `num_classes`.
        penalty: as in `softmax_loss`.
        epochs, batch_size, lr, betas: of Adam.
        seed: decides the order of the images; nothing else is random.
        start: classifier to begin with; zeros if None.
    """
    start = start or _zeros(features, num_classes)
    weight, bias = (part.detach().clone() for part in start)
    optimizer = torch.optim.Adam([weight, bias], lr=lr, betas=betas)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for batch in order.split(batch_size):
            _, weight.grad, bias.grad = _loss_and_gradient(
                LinearSoftmax(weight, bias), features[batch], labels[batch], penalty
            )
            optimizer.step()
    return LinearSoftmax(weight, bias)


def _zeros(features: Tensor, num_classes: int) -> LinearSoftmax:
    return LinearSoftmax(features.new_zeros(num_classes, features.shape[1]), features.new_zeros(num_classes))


def _loss_and_gradient(
    at: LinearSoftmax, features: Tensor, labels: Tensor, penalty: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`softmax_loss` and its gradient, in half the time of autograd for these shapes."""
    log_p = at.log_probabilities(features)
    pull = penalty * at.weight
    loss = F.nll_loss(log_p, labels) + 0.5 * (pull * at.weight).sum()
    wrong = log_p.exp_()
    wrong[torch.arange(len(labels), device=labels.device), labels] -= 1
    wrong /= len(labels)
    return loss, pull + linear(wrong.mT, features.mT), wrong.sum(0)
