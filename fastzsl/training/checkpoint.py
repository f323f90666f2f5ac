"""Files that are whole or absent, and the state from which a run continues bit for bit."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fastzsl.errors import UserError, first_line


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, and move it into place.

    Whoever looks finds the old file or the whole new one, also after a crash or on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes made beforehand: a full disk then raises a plain OSError, not a library's own error."""
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_text_atomically(path: Path, text: str) -> None:
    write_bytes_atomically(path, text.encode("utf-8"))


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Atomic safetensors file that knows its own digest."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomically(path, save(plain, metadata={**(metadata or {}), "digest": _digest(plain)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: absent, cut short, or with other numbers than were written.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; wanted the weights of a run")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            digest = (file.metadata() or {}).get("digest")
    except Exception as error:
        raise UserError(f"{path}: not a whole safetensors file ({first_line(error)})") from None
    if digest is not None and digest != _digest(tensors):
        raise UserError(f"{path}: the weights are not those that were written; the file is damaged")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """Changes with any name, shape, type or bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


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
