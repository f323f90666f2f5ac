"""L-BFGS for given losses and gradients. It uses no random numbers, so every run gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

HISTORY = 10

LossAndGradient = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""Parameters -> the loss and its derivative by each of them."""


def minimise_by_lbfgs(
    start: Sequence[Tensor], loss_and_gradient: LossAndGradient, *, steps: int, tolerance: float
) -> list[Tensor]:
    """Minimise with L-BFGS and strong Wolfe line searches.

    Args:
        start: parameters to begin with; they are not changed.
        loss_and_gradient: the function to minimise. If it is convex, the result does not depend on `start`.
        steps: largest number of steps.
        tolerance: stop if no entry of the gradient is larger, or the loss no longer falls.
    """
    parameters = [part.detach().clone().requires_grad_() for part in start]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=tolerance,
        tolerance_change=torch.finfo(parameters[0].dtype).tiny,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss, *gradients = loss_and_gradient([part.detach() for part in parameters])
        for part, gradient in zip(parameters, gradients):
            part.grad = gradient
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return [part.detach() for part in parameters]
