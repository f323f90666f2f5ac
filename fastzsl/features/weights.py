"""Weights of backbones: published ones, which are downloaded, and the user's own files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastzsl.errors import UserError, first_line

HEADS = ("fc.", "classifier.", "head.", "heads.", "head_dist.", "aux1.", "aux2.", "AuxLogits.")


def build(name: str, make: Callable[[], nn.Module], weights: str | Path | None, default: str) -> nn.Module:
    """Call `make`; if the download of published weights fails, the error says what to do instead."""
    try:
        return make()
    except Exception as error:
        if weights is not None:
            raise
        raise UserError(
            f"the published weights of {name} could not be fetched ({type(error).__name__}: "
            f"{first_line(error, 120)}); bring the file and pass --backbone-weights FILE, "
            f"or use --backbone {default}, whose weights come with pip"
        ) from error


def load_state(model: nn.Module, path: Path, name: str, image_size: int) -> None:
    """Load a state dict into a classifier, with any head, without unpickling anything but tensors.

    Args:
        model: the whole classifier.
        path: .safetensors, or .pt or .pth with tensors only.
        name: for messages.
        image_size: side of the images; position embeddings of another size are resampled.

    Raises:
        UserError: no such file, other content, or tensors that the model needs are missing or of another shape.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"--backbone-weights: no file {path}")
    try:
        stored = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        fitting = _fit(model, stored, image_size)
        wanted = model.state_dict()
        missing, _ = model.load_state_dict(
            {k: v for k, v in fitting.items() if k in wanted and v.shape == wanted[k].shape}, strict=False
        )
    except Exception as error:
        said = f" ({first_line(error)})" if path.suffix == ".safetensors" else ""  # PyTorch's are pages
        raise UserError(
            f"{path}: not a state dict of tensors{said}; wanted .safetensors, .pt or .pth"
        ) from error
    missing = [k for k in missing if not k.startswith(HEADS)]
    if missing:
        raise UserError(f"{path}: {len(missing)} tensors of {name} are missing, first {missing[0]}")


def _fit(model: Any, stored: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """The state with this model's names and for its image size, converted by the model's own library."""
    module = type(model).__module__
    if module == "torchvision.models.vision_transformer":
        from torchvision.models.vision_transformer import interpolate_embeddings

        return interpolate_embeddings(image_size, model.patch_size, dict(stored))  # type: ignore[arg-type]
    convert = getattr(sys.modules[module], "checkpoint_filter_fn", None)
    return convert(dict(stored), model) if convert else stored  # timm's


def resized_vit(name: str, model: Any, image_size: int) -> nn.Module:
    """A torchvision transformer with the same weights for images of another size."""
    import torchvision
    from torchvision.models.vision_transformer import interpolate_embeddings

    resized: nn.Module = torchvision.models.get_model(name, weights=None, image_size=image_size)
    resized.load_state_dict(interpolate_embeddings(image_size, model.patch_size, model.state_dict()))
    return resized
