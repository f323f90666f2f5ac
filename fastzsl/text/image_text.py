"""Texts described by the text tower of an image-text model of `open_clip`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fastzsl.chatter import without_chatter
from fastzsl.clip import open_image_text, require_open_clip
from fastzsl.errors import UserError, first_line
from fastzsl.files.tensors import digest_of

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
        self._tower, name = open_image_text(model, weights)
        try:
            with without_chatter():
                self._tokenise = require_open_clip().get_tokenizer(name)
        except Exception as error:  # of several libraries
            raise UserError(
                f"image-text model {model}: cannot be loaded ({first_line(error, 160)})"
            ) from None
        self.model = str(Path(model).absolute()) if Path(model).is_dir() else model
        self.weights = str(Path(weights).absolute()) if weights and Path(weights).is_file() else weights
        self.digest = digest_of(self._tower.state_dict())
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
