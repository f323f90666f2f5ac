"""Names described by word vectors: the mean of the vectors of a name's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastzsl.errors import UserError
from fastzsl.text.fasttext_model import FastTextModel, is_fasttext_model
from fastzsl.text.vector_files import GLOVE, PackagedGlove, WordVectors, nearest_word, text_or_binary


class WordEncoder:
    """Texts to the mean of their words' vectors.

    A text whose words are joined by `_` or `-` in the vocabulary, such as `tiger_lily`, gets this vector. Otherwise
    its words are looked up one by one, in lower case first. Unknown words are left out, and named in `notes`.

    Args:
        model: "glove-6b-50d", or a file of word vectors.
    """

    kind = "words"

    def __init__(self, model: str = GLOVE) -> None:
        self.model = model if model == GLOVE else str(Path(model).absolute())
        self._vectors = open_vectors(model)
        self.dim, self.digest = self._vectors.dim, self._vectors.digest
        self.notes: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"model": self.model}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, k) float32.

        Raises:
            UserError: a text without any known word; the nearest known word is named.
        """
        self.notes = []
        candidates = [_candidates(text) for text in texts]
        wanted = {form for whole, words in candidates for forms in (whole, *words) for form in forms}
        found = self._vectors.find(sorted(wanted))
        rows: list[np.ndarray] = []
        nameless = [
            text
            for text, (whole, words) in zip(texts, candidates)
            if not any(form in found for forms in (whole, *words) for form in forms)
        ]
        if nameless:
            raise self._unknown(nameless)
        for text, (whole, words) in zip(texts, candidates):
            named = None if self._vectors.composes else next((found[f] for f in whole if f in found), None)
            rows.append(self._mean(text, words, found) if named is None else named)
        return np.stack(rows)

    def _mean(self, text: str, words: list[list[str]], found: dict[str, np.ndarray]) -> np.ndarray:
        known, unknown = [], []
        for forms in words:
            vector = next((found[form] for form in forms if form in found), None)
            if vector is None:
                unknown.append(forms[0])
            else:
                known.append(vector)
        for word in unknown:
            hint = nearest_word(word, self._vectors.vocabulary())
            self.notes.append(f'"{text}": {word} is not a word of {self.model} and was left out{hint}')
        mean: np.ndarray = np.stack(known).mean(0)
        return mean

    def _unknown(self, texts: list[str]) -> UserError:
        """The error for texts without any known word."""
        first, words = texts[0], _candidates(texts[0])[1]
        if not words:
            return UserError(f'"{first}" has no word; wanted a name of letters')
        hint = nearest_word(words[0][0], self._vectors.vocabulary())
        more = f" ({len(texts) - 1} more: {', '.join(texts[1:9])})" if len(texts) > 1 else ""
        what = f'"{first}" is not a word' if len(words) == 1 else f'no word of "{first}" is one'
        return UserError(f"{what} of {self.model}{hint}{more}; other words can be given as {first}=WORDS")


def open_vectors(model: str) -> WordVectors:
    """Word vectors by name or file.

    Raises:
        UserError: not installed, or not a file of word vectors.
    """
    if model == GLOVE:
        return PackagedGlove()
    path = Path(model)
    if path.is_file() and is_fasttext_model(path):
        return FastTextModel(path)
    return text_or_binary(path)


def _candidates(text: str) -> tuple[list[str], list[list[str]]]:
    """Forms of the whole name, and for each word its forms, in the order in which they are looked up."""
    words = re.findall(r"[^\W_]+", text)
    whole = [sign.join(words) for sign in ("_", "-")] if len(words) > 1 else []
    forms = [form for name in whole for form in (name.lower(), name)]
    return forms, [list(dict.fromkeys((word.lower(), word))) for word in words if word.lower() != "s"]
