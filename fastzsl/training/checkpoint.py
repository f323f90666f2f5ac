"""The state from which a training continues bit for bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from fastzsl.errors import UserError, first_line
from fastzsl.files.atomic import write_bytes_atomically


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Atomic checkpoint of tensors and plain values."""
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
    kinds = {"step": int, "settings": dict, "model": dict, "optimizer": dict}
    if not isinstance(state, dict) or any(not isinstance(state.get(k), kind) for k, kind in kinds.items()):
        raise UserError(f"{path}: not a checkpoint of fastzsl; remove it to start again")
    return state
