"""One process or many: Lightning Fabric from the settings, or from what torchrun says."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from fastzsl.errors import UserError, first_line
from fastzsl.training.config import Config

R = TypeVar("R")
PATIENCE = timedelta(days=1)
"""How long processes wait for one that extracts features or evaluates; torchrun ends them when one dies."""


def launch(config: Config) -> Fabric:
    """Fabric for the settings, its processes joined.

    Under `torchrun` the number of devices and machines is torchrun's; without it `--devices N` starts N
    processes on this machine. Several processes train with DDP: NCCL on GPUs, gloo on CPUs.

    Raises:
        UserError: `--devices` contradicts torchrun, or the machine has fewer.
    """
    devices, nodes = config.devices, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        if config.devices not in (1, devices):
            raise UserError(
                f"--devices is {config.devices} but torchrun started {devices} processes here; leave --devices "
                "out"
            )
    strategy: DDPStrategy | str = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(find_unused_parameters=_has_unused_parameters(config), timeout=PATIENCE)
    fabric = open_fabric(config.accelerator, config.precision, devices, strategy=strategy, num_nodes=nodes)
    fabric.launch()
    return fabric


def open_fabric(accelerator: str, precision: Any, devices: int = 1, **options: Any) -> Fabric:
    """Fabric, not launched yet.

    Args:
        accelerator: "auto", "cpu", "cuda" or "mps".
        precision: one of Fabric's.
        options: what else Fabric takes.

    Raises:
        UserError: no such accelerator, or not so many devices.
    """
    try:
        return Fabric(accelerator=accelerator, devices=devices, precision=precision, **options)
    except (MisconfigurationException, RuntimeError, ValueError, ImportError) as error:
        several = f", {devices} devices" if devices > 1 else ""
        raise UserError(f"--accelerator {accelerator}{several}: {first_line(error, 150)}") from None


def first_then_others(fabric: Fabric, work: Callable[[], R]) -> R:
    """Do something in one process of each machine, then in the others.

    A fault leaves the barrier as a value: an exception would leave the others inside it, complaining.
    """
    result: R | Exception
    with fabric.rank_zero_first(local=True):
        try:
            result = work()
        except (UserError, OSError) as error:
            result = error
    if isinstance(result, Exception):
        raise result
    return result


def _has_unused_parameters(config: Config) -> bool:
    """Whether some parameter gets no gradient, for which DDP has to look in every step."""
    reconstructs, aligns = bool(config.eta), bool(config.alpha)
    encoder_idle = config.pooling == "average" and not (reconstructs or aligns)
    decoder_idle = not config.coupled and not reconstructs
    return (
        encoder_idle or decoder_idle or config.train_backbone
    )  # a trunk may hold layers that it does not use
