"""The training loop of methods that are trained by gradient steps. It can be resumed bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import nvtx
import torch
from torch import Tensor, nn

from fastzsl.errors import UserError
from fastzsl.features.prefetch import prefetch
from fastzsl.methods.engines.checkpoint import Checkpoint
from fastzsl.methods.engines.parts import BatchPart

if TYPE_CHECKING:
    from fastzsl.methods.context import Context

WARM_UP = 0.1
STEP_SEED = 1_000_003


Objective = Callable[[Tensor, Tensor, BatchPart], dict[str, Tensor]]
"""(inputs, labels (B,), part) -> the terms of the loss, "loss" among them."""


def warm_up_then_cosine(step: int, total: int) -> float:
    """Share of the learning rate: linear over the first tenth of the steps, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def constant(step: int, total: int) -> float:
    """A constant learning rate."""
    return 1.0


def minimise(
    model: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    read: Callable[[Tensor, int], Tensor],
    labels: Tensor,
    context: Context,
    *,
    epochs: int,
    batch_size: int,
    schedule: Callable[[int, int], float] = warm_up_then_cosine,
) -> None:
    """Train `model` in place by stochastic gradient steps.

    The order of the images and every random number of a step depend only on `context.seed` and the step's number. So a
    training continued from a checkpoint ends with the same weights as one that was never stopped.

    Args:
        model: the model to train; it is saved in the checkpoint.
        objective: a module around `model` whose forward is an `Objective`; precision and DDP apply to it.
        optimizer: over the model's parameters; every group's "lr" is its highest learning rate.
        read: (indices (B,) of training images, number that decides the random choices of the step) -> the inputs of
            the objective.
        labels: (N,) training classes.
        epochs, batch_size: passes over the training images, images in a step over all devices.
        schedule: share of the learning rate at a step.

    Raises:
        UserError: the loss is not finite, or the checkpoint belongs to another training.
    """
    fabric, seed = context.fabric, context.seed
    steps_per_epoch = math.ceil(len(labels) / batch_size)
    total = epochs * steps_per_epoch
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    bare_optimizer = optimizer
    checkpoint = Checkpoint(context, {"model": model, "optimizer": bare_optimizer})
    first = checkpoint.restore()
    _same_on_all_devices(first, context)
    objective, optimizer = fabric.setup(objective, optimizer)
    objective.train()

    def read_at(place: tuple[int, Tensor, BatchPart]) -> Tensor:
        return read(place[1], seed * STEP_SEED + place[0])

    places = _batches(len(labels), context, epochs, batch_size, first)
    with torch.random.fork_rng():
        for (step, batch, part), inputs, waited in prefetch(places, read_at):
            _reseed(seed * STEP_SEED + step, fabric.device)
            lr_share = schedule(step, total)
            for group in bare_optimizer.param_groups:
                group["lr"] = group["initial_lr"] * lr_share
            with nvtx.annotate("data"):
                inputs = fabric.to_device(inputs)
                own_labels = fabric.to_device(labels[batch])
            with nvtx.annotate("forward"):
                terms = objective(inputs, own_labels, part)
            figures = _figures(terms, context)
            if not math.isfinite(figures["loss"]):
                raise UserError(_not_finite(step, figures, context))
            with nvtx.annotate("backward"):
                fabric.backward(terms["loss"])
            with nvtx.annotate("step"):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            done = step + 1
            rate = bare_optimizer.param_groups[0]["lr"]
            figures |= {"lr": rate, "epoch": step // steps_per_epoch, "data_wait": waited}
            context.listener(done, total, figures)
            if done % steps_per_epoch == 0 or done % context.checkpoint_steps == 0:
                checkpoint.save(done)
    model.eval()


def _reseed(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, for the generators of the CPU and of `device` only.

    For every kind of device that PyTorch knows and this process does not use, `torch.manual_seed` keeps a call for
    later, with a text of its stack: .7 ms at every step, and memory that grows.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        # MPS has one device, and no function for all.
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, the same on every machine."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * STEP_SEED + epoch))


def _batches(
    count: int, context: Context, epochs: int, batch_size: int, first: int
) -> Iterator[tuple[int, Tensor, BatchPart]]:
    """From step `first` on: the step, this device's image indices, and their part of the batch."""
    steps_per_epoch = math.ceil(count / batch_size)
    world, rank = context.fabric.world_size, context.fabric.global_rank
    for epoch in range(first // steps_per_epoch, epochs):
        for position, batch in enumerate(epoch_order(count, context.seed, epoch).split(batch_size)):
            step = epoch * steps_per_epoch + position
            if step < first:
                continue
            rows = slice(rank, None, world)
            weight = len(batch[rows]) * world / len(batch)
            if not weight:
                rows = slice(0, 1)
            yield step, batch[rows], BatchPart(rows, len(batch), weight)


def _figures(terms: Mapping[str, Tensor], context: Context) -> dict[str, float]:
    """The losses of the whole batch, the same on every device."""
    values = torch.stack([value.detach().double() for value in terms.values()])
    if context.fabric.world_size > 1:
        values = cast(Tensor, context.fabric.all_reduce(values, reduce_op="mean"))
    return dict(zip(terms, values.tolist()))


def _same_on_all_devices(step: int, context: Context) -> None:
    if context.fabric.world_size == 1:
        return
    steps = cast(Tensor, context.fabric.all_gather(torch.tensor(step))).flatten().tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"{context.checkpoint}: the processes see checkpoints of steps {steps}; the run folder must be on a "
            "file system that all machines share"
        )


def _not_finite(step: int, figures: Mapping[str, float], context: Context) -> str:
    terms = ", ".join(f"{name} {value:g}" for name, value in figures.items() if name != "loss")
    path = context.checkpoint
    kept = f"the last good checkpoint is {path}" if path and path.exists() else "no checkpoint yet"
    return f"the loss is {figures['loss']:g} at step {step + 1} ({terms}); {kept}; a lower --lr may help"
