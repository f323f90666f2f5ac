"""Sentences described by a model of `sentence-transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastzsl.chatter import without_chatter
from fastzsl.errors import UserError, first_line
from fastzsl.files.tensors import digest_of


class SentenceEncoder:
    """Texts to the embeddings of a sentence model.

    Args:
        model: a model's name, or a folder that holds one. Its weights must be safetensors: nothing is unpickled, and
            no code of the model's is run.
    """

    kind = "sentences"

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise UserError(
                "sentences need sentence-transformers: pip install 'fastzsl[sentences]'"
            ) from None
        if not model:
            raise UserError("--encoder sentences needs --model, a model's name or its folder")
        if _looks_like_a_path(model) and not Path(model).is_dir():
            raise UserError(f"no folder {model}; wanted the folder of a sentence model, or a model's name")
        try:
            with without_chatter():
                self._model = SentenceTransformer(
                    model, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
                )
        except Exception as error:  # of several libraries
            raise UserError(f"sentence model {model}: cannot be loaded ({first_line(error, 160)})") from None
        self.model = str(Path(model).absolute()) if Path(model).is_dir() else model
        self.digest = digest_of(self._model.state_dict())
        self.dim = len(self.encode(["a"])[0])
        self.notes: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"model": self.model}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, k) float32.

        Raises:
            UserError: the model fails on a text, or gives no finite numbers.
        """
        try:
            found = self._model.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
        except Exception as error:
            raise UserError(f"sentence model {self.model}: {first_line(error, 160)}") from None
        return np.asarray(found, np.float32)


def _looks_like_a_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") > 1
