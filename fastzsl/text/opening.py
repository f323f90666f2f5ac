"""Text encoders by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np

from fastzsl.errors import UserError
from fastzsl.text.image_text import ImageTextEncoder
from fastzsl.text.sentences import SentenceEncoder
from fastzsl.text.vector_files import GLOVE
from fastzsl.text.words import WordEncoder

Kind = Literal["words", "sentences", "image-text"]


class Encoder(Protocol):
    """Texts to embeddings.

    Attributes:
        kind: "words", "sentences" or "image-text".
        model: its name or file.
        digest: changes with the model's numbers.
        dim: k.
        notes: after `encode`, one line for each thing that the user should know.
    """

    kind: str
    model: str
    digest: str
    dim: int
    notes: list[str]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (N, k) float32 of N texts."""
        ...

    def settings(self) -> dict[str, Any]:
        """What opens the same encoder again: model, and weights if it has any."""
        ...


def open_encoder(kind: Kind | str = "words", model: str | None = None, weights: str | None = None) -> Encoder:
    """A text encoder.

    Args:
        kind: "words" averages the word vectors of a name's words, "sentences" is a sentence model, "image-text" the
            text tower of an image-text model.
        model: words: "glove-6b-50d" (default) or a file of word vectors; sentences: a name of sentence-transformers or
            a folder; image-text: a name of open_clip or a folder.
        weights: only for a name of open_clip: a tag, a .safetensors file, or "random".

    Raises:
        UserError: an unknown kind, a package that is not installed, or a model that cannot be loaded.
    """
    if kind not in get_args(Kind):
        raise UserError(f"unknown encoder {kind}; wanted one of {', '.join(get_args(Kind))}")
    if weights is not None and kind != "image-text":
        raise UserError(f"--weights {weights} is only for --encoder image-text")
    if kind == "words":
        return WordEncoder(model or GLOVE)
    if kind == "sentences":
        return SentenceEncoder(model or "")
    if not model:
        raise UserError("--encoder image-text needs --model, a name of open_clip or a folder")
    return ImageTextEncoder(model, weights)
