"""Checkpoints, from which a training continues bit for bit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fastzsl.errors import UserError, first_line
from fastzsl.files.atomic import write_bytes_atomically

if TYPE_CHECKING:
    from fastzsl.methods.context import Context


class Stateful(Protocol):
    """A module, an optimiser, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Checkpoint:
    """Saves the parts of a training in `context.checkpoint`, and loads them from there.

    Args:
        context: has the path of the file; without one nothing is saved, and every training starts at step 0.
        parts: name -> module, optimiser or another object with a state.
    """

    def __init__(self, context: Context, parts: Mapping[str, Stateful]) -> None:
        self._context, self._parts = context, dict(parts)
        precision = context.fabric.strategy.precision
        if getattr(precision, "scaler", None) is not None:
            self._parts["precision"] = precision

    def restore(self) -> int:
        """Load the saved state and return the number of finished steps; 0 if nothing is saved.

        Raises:
            UserError: the file is damaged, or belongs to another training.
        """
        path = self._context.checkpoint
        if path is None or not path.exists():
            return 0
        state = load_state(path)
        kept, wanted = state["identity"], self._context.identity
        for name in dict.fromkeys((*wanted, *kept)):
            if kept.get(name) != wanted.get(name):
                raise UserError(
                    f"{path} belongs to a run with {name} = {kept.get(name)}, not {wanted.get(name)}; "
                    "resume with the same settings, or choose another --out"
                )
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state["parts"][name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} holds another model ({str(error).splitlines()[-1].strip()[:100]}); "
                "choose another --out"
            ) from None
        return int(state["step"])

    def save(self, step: int) -> None:
        """Save the state after `step` steps; if there are several processes, the first one writes."""
        if self._context.checkpoint is None:
            return
        if self._context.fabric.is_global_zero:
            parts = {name: part.state_dict() for name, part in self._parts.items()}
            save_state(
                self._context.checkpoint,
                {"step": step, "identity": dict(self._context.identity), "parts": parts},
            )
        self._context.fabric.barrier()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, completely or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors and plain values.

    Raises:
        UserError: cut short or not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a whole checkpoint ({first_line(error)}); remove it to start again"
        ) from None
    kinds = {"step": int, "identity": dict, "parts": dict}
    if not isinstance(state, dict) or any(not isinstance(state.get(k), kind) for k, kind in kinds.items()):
        raise UserError(f"{path}: not a checkpoint of this version; remove it to start again")
    return state


def last_step(path: Path) -> int:
    """The step of a checkpoint, 0 if there is none."""
    return int(load_state(path)["step"]) if path.exists() else 0
