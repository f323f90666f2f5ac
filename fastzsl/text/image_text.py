"""Texts described by the text tower of an image-text model of `open_clip`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fastzsl.errors import UserError, first_line, nearest
from fastzsl.files.tensors import digest_of
from fastzsl.text.sentences import without_chatter

BATCH = 64


class ImageTextEncoder:
    """Texts to unit vectors in the space that the model shares with images.

    Args:
        model: a name of open_clip such as `ViT-B-32`, or a folder with `open_clip_config.json` and weights in
            safetensors.
        weights: for a name: a tag of its published weights, a .safetensors file, or "random".
    """

    kind = "image-text"

    def __init__(self, model: str, weights: str | None = None) -> None:
        try:
            import open_clip
        except ImportError:
            raise UserError("image-text models need open_clip: pip install 'fastzsl[image-text]'") from None
        folder = Path(model)
        if folder.is_dir():
            if weights:
                raise UserError(f"--weights {weights} is not for the folder {model}, which has its own")
            if not list(folder.glob("*.safetensors")):
                raise UserError(
                    f"{model}: no .safetensors file; wanted open_clip_config.json and such weights"
                )
            name, model, pretrained = f"local-dir:{folder}", str(folder.absolute()), None
        else:
            name, pretrained = model, _weights(open_clip, model, weights)
        try:
            with without_chatter(), torch.random.fork_rng() if weights == "random" else nullcontext():
                if weights == "random":
                    torch.manual_seed(0)
                tower = open_clip.create_model(name, pretrained=pretrained, weights_only=True, device="cpu")
            self._tokenise = open_clip.get_tokenizer(name)
        except Exception as error:  # of several libraries
            raise UserError(
                f"image-text model {model}: cannot be loaded ({first_line(error, 160)})"
            ) from None
        self._tower = tower.eval()
        self.model = model
        self.weights = str(Path(weights).absolute()) if weights and Path(weights).is_file() else weights
        self.digest = digest_of(tower.state_dict())
        self.dim = self.encode(["a"]).shape[1]
        self.notes: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"model": self.model, "weights": self.weights}

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, k) float32, rows of unit length."""
        rows = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenise(list(texts[start : start + BATCH]))
            rows.append(F.normalize(self._tower.encode_text(tokens).float(), dim=-1))
        return torch.cat(rows).numpy()


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
