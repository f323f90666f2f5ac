"""Image-text models of `open_clip`, opened without unpickling anything."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from fastzsl.chatter import without_chatter
from fastzsl.errors import UserError, first_line, nearest


def open_image_text(model: str, weights: str | None, image_size: int | None = None) -> tuple[Any, str]:
    """An image-text model on the CPU, in evaluation mode, and the name under which its tokeniser is known.

    Args:
        model: a name of open_clip such as `ViT-B-32`, or a folder with `open_clip_config.json` and weights in
            safetensors.
        weights: for a name: a tag of its published weights, a .safetensors file, or "random" (fixed seed).
        image_size: side of the images in pixels, to which position embeddings are resampled; None for the model's own.

    Raises:
        UserError: open_clip is not installed, an unknown name, or weights that cannot be loaded.
    """
    open_clip = require_open_clip()
    folder = Path(model)
    if folder.is_dir():
        if weights:
            raise UserError(f"--weights {weights} is not for the folder {model}, which has its own")
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"{model}: no .safetensors file; wanted open_clip_config.json and such weights")
        name, pretrained = f"local-dir:{folder}", None
    else:
        name, pretrained = model, _weights(open_clip, model, weights)
    try:
        with without_chatter(), torch.random.fork_rng() if weights == "random" else nullcontext():
            if weights == "random":
                torch.manual_seed(0)
            made = open_clip.create_model(
                name, pretrained=pretrained, weights_only=True, device="cpu", force_image_size=image_size
            )
    except Exception as error:  # of several libraries
        raise UserError(f"image-text model {model}: cannot be loaded ({first_line(error, 160)})") from None
    return made.eval(), name


def require_open_clip() -> Any:
    """The module, or a `UserError` that says how to install it."""
    try:
        import open_clip
    except ImportError:
        raise UserError("image-text models need open_clip: pip install 'fastzsl[image-text]'") from None
    return open_clip


def _weights(open_clip: Any, model: str, weights: str | None) -> str | None:
    """What open_clip takes as `pretrained`.

    Raises:
        UserError: an unknown model, weights that it does not have, or a file that is not safetensors.
    """
    known = open_clip.list_models()
    if model not in known:
        raise UserError(f'unknown image-text model "{model}"{nearest(model, known)}, or a folder')
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not weights:
        raise UserError(
            f"--model {model} needs --weights: one of {', '.join(tags[:4]) or 'no published ones'}, "
            "a .safetensors file, or random"
        )
    if weights == "random":
        return None
    if weights in tags:
        return weights
    if not Path(weights).is_file():
        raise UserError(
            f"--weights {weights}: no such file, and no weights of {model}{nearest(weights, tags)}"
        )
    if Path(weights).suffix != ".safetensors":
        raise UserError(f"--weights {weights}: wanted a .safetensors file; nothing is unpickled")
    return weights
