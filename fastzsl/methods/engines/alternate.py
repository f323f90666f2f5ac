"""The training loop of methods in which several networks are trained in turn. It can be resumed bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastzsl.errors import UserError
from fastzsl.methods.engines.checkpoint import Checkpoint, Stateful
from fastzsl.methods.engines.loop import STEP_SEED

if TYPE_CHECKING:
    from fastzsl.methods.context import Context

Loss = Callable[[Tensor, torch.Generator], dict[str, Tensor]]
"""(indices (B,) of training images, random numbers of the step) -> the terms of the loss, "loss" among them."""


@dataclass(frozen=True)
class Player:
    """One of the networks (or groups of networks) that are trained in turn.

    Attributes:
        parameters: the parameters that its turns change.
        optimizer: over `parameters`.
        loss: the loss that it minimises.
        turns: updates in a step.
        fresh: draw new images in each turn; otherwise it gets the images of the turn before it.
    """

    parameters: tuple[nn.Parameter, ...]
    optimizer: torch.optim.Optimizer
    loss: Loss
    turns: int = 1
    fresh: bool = True


def player(
    module: nn.Module,
    loss: Loss,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    turns: int = 1,
    fresh: bool = True,
) -> Player:
    """A `Player` that trains all parameters of `module` with Adam."""
    parameters = tuple(module.parameters())
    return Player(parameters, torch.optim.Adam(parameters, lr, betas, fused=True), loss, turns, fresh)


def alternate(
    players: Mapping[str, Player],
    count: int,
    context: Context,
    kept: Mapping[str, Stateful],
    *,
    steps: int,
    batch_size: int,
) -> None:
    """Train the players in turn.

    In a step every player has its turns, in the order of `players`. Every random number of a step depends only on
    `context.seed` and the step's number, and is drawn on the CPU. So a training continued from a checkpoint ends with
    the same weights as one that was never stopped. Training is in float32. Several processes all do the same work.

    Args:
        players: name -> player.
        count: N, the number of training images.
        context: device, seed, checkpoint, listener.
        kept: name -> module that a checkpoint saves in addition to the optimisers; together the modules must
            have all parameters.
        steps: number of steps.
        batch_size: images in a turn, without repetition; all N if there are fewer.

    Raises:
        UserError: a loss is not finite, or the checkpoint belongs to another training.
    """
    parts = {**kept, **{f"{name} optimizer": player.optimizer for name, player in players.items()}}
    checkpoint = Checkpoint(context, parts)
    images = torch.empty(0, dtype=torch.long)
    for step in range(checkpoint.restore(), steps):
        random = torch.Generator().manual_seed(context.seed * STEP_SEED + step)
        figures: dict[str, Tensor] = {}
        for name, side in players.items():
            for _ in range(side.turns):
                if side.fresh:
                    images = torch.randperm(count, generator=random)[:batch_size]
                terms = side.loss(images.to(context.device), random)
                _update(side, terms["loss"])
            figures |= {name if term == "loss" else term: value.detach() for term, value in terms.items()}
        _report(figures, step, steps, context)
        done = step + 1
        if done % context.checkpoint_steps == 0 or done == steps:
            checkpoint.save(done)


def _update(side: Player, loss: Tensor) -> None:
    """One step of the player's optimiser. Gradients of the other players' parameters are not computed."""
    gradients = torch.autograd.grad(loss, side.parameters)
    for parameter, gradient in zip(side.parameters, gradients):
        parameter.grad = gradient
    side.optimizer.step()
    side.optimizer.zero_grad(set_to_none=True)


def _report(figures: Mapping[str, Tensor], step: int, steps: int, context: Context) -> None:
    values = dict(zip(figures, torch.stack([value.double() for value in figures.values()]).tolist()))
    if not all(map(math.isfinite, values.values())):
        terms = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise UserError(f"a loss is not finite at step {step + 1} ({terms}); a lower --lr may help")
    last = list(values.values())[-1]
    context.listener(step + 1, steps, {"loss": last, **values})
