"""The inputs of a training besides its data: device and precision, seed, checkpoint, listener."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fastzsl.fabric import Fabric

Listener = Callable[[int, int, Mapping[str, float]], None]
"""Called after a step with its number (from 1), the number of all steps, and values such as losses."""


def _nobody(step: int, total: int, figures: Mapping[str, float]) -> None:
    pass


def _one_cpu() -> Fabric:
    from fastzsl.fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


@dataclass
class Context:
    """Circumstances of one training.

    Attributes:
        fabric: device, precision and processes.
        seed: decides every random number.
        checkpoint: file with the state of a training; if it exists, the training continues from it. With None no
            state is saved.
        checkpoint_steps: number of steps between two checkpoints.
        identity: of the training; a checkpoint with another identity is refused.
        listener: called after every step.
    """

    fabric: Fabric = field(default_factory=_one_cpu)
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_steps: int = 500
    identity: Mapping[str, Any] = field(default_factory=dict)
    listener: Listener = _nobody

    @property
    def device(self) -> torch.device:
        return self.fabric.device
