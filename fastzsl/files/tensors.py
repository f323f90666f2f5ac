"""Tensors in safetensors files that contain their own digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fastzsl.errors import UserError, first_line
from fastzsl.files.atomic import write_bytes_atomically
from fastzsl.files.special import refuse_special


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write, atomically, a safetensors file that contains its own digest."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomically(path, save(plain, metadata={**(metadata or {}), "digest": digest_of(plain)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file that `save_tensors` wrote.

    Raises:
        UserError: absent, cut short, without a digest, or with numbers that do not agree with it.
    """
    refuse_special(path)
    if not path.is_file():
        raise UserError(f"no file {path}; wanted the weights of a run")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            digest = (file.metadata() or {}).get("digest")
    except Exception as error:
        raise UserError(f"{path}: not a whole safetensors file ({first_line(error)})") from None
    if digest is None:
        raise UserError(f"{path}: no digest in it; damaged, or not written by this program")
    if digest != digest_of(tensors):
        raise UserError(f"{path}: the weights are not those that were written; the file is damaged")
    return tensors


def digest_of(tensors: dict[str, Tensor]) -> str:
    """A digest that changes with any name, shape, type or bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
