"""One process or several: Lightning Fabric from the settings or from torchrun's environment variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

from fastzsl.errors import UserError, first_line
from fastzsl.fabric import DDPStrategy, Fabric, MisconfigurationException
from fastzsl.training.settings import Settings

R = TypeVar("R")
PATIENCE = timedelta(days=1)
"""How long processes wait for one that extracts features or evaluates; torchrun ends them when one dies."""


def launch(settings: Settings) -> Fabric:
    """Fabric for the settings, its processes joined.

    Under `torchrun` the number of devices and machines is torchrun's; without it `--devices N` starts N
    processes on this machine. Several processes train with DDP: NCCL on GPUs, gloo on CPUs.

    Raises:
        UserError: `--devices` contradicts torchrun, or the machine has fewer.
    """
    run = settings.run
    devices, nodes = run.devices, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        if run.devices not in (1, devices):
            raise UserError(
                f"--devices is {run.devices} but torchrun started {devices} processes here; leave --devices "
                "out"
            )
    strategy: DDPStrategy | str = "auto"
    if devices * nodes > 1:
        strategy = DDPStrategy(find_unused_parameters=settings.method.has_idle_parameters, timeout=PATIENCE)
    fabric = open_fabric(run.accelerator, run.precision, devices, strategy=strategy, num_nodes=nodes)
    fabric.launch()
    return fabric


def open_fabric(accelerator: str, precision: Any, devices: int = 1, **options: Any) -> Fabric:
    """Fabric, not launched yet.

    Args:
        accelerator: "auto", "cpu", "cuda" or "mps".
        precision: one of Fabric's.
        options: further arguments of Fabric.

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

    An error is passed through the barrier as a value. An exception would leave the other processes waiting there.
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
