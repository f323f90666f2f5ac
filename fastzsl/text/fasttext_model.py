"""fastText's own models (.bin): vectors of words, and of unknown words from the parts that they consist of."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from fastzsl.errors import UserError
from fastzsl.text.vector_files import LARGEST_DIM, sample_digest

MAGIC = struct.pack("<i", 793712314)
_ARGUMENTS = struct.Struct("<12i d")
_DICTIONARY = struct.Struct("<3i 2q")


def is_fasttext_model(path: Path) -> bool:
    """Whether a file starts as such a model does."""
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


class FastTextModel:
    """A word's vector is the mean of its own and those of its letter n-grams; only the wanted rows are read.

    Raises:
        UserError: a quantised model, or a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, sample_digest(path)
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(data)
        except (struct.error, IndexError, UnicodeDecodeError):
            raise self._damaged("it is cut short") from None

    def _read(self, data: mmap.mmap) -> None:
        (version,) = struct.unpack_from("<i", data, 4)
        if version not in (11, 12):
            raise self._damaged(f"version {version}; wanted 11 or 12")
        arguments = _ARGUMENTS.unpack_from(data, 8)
        self.dim, self._buckets, self._shortest, self._longest = arguments[0], *arguments[8:11]
        supervised = arguments[7] == 3
        if version == 11 and supervised:
            self._longest = 0
        at = 8 + _ARGUMENTS.size
        size, words, _, _, pruned = _DICTIONARY.unpack_from(data, at)
        at += _DICTIONARY.size
        if not 0 < self.dim <= LARGEST_DIM or not 0 < words <= size or self._buckets < 0:
            raise self._damaged(f"{words} words of {self.dim} numbers")
        self._rows: dict[str, int] = {}
        for entry in range(size):
            end = data.find(b"\0", at)
            if end < 0:
                raise self._damaged(f"the vocabulary ends at word {entry} of {size}")
            if entry < words:
                self._rows.setdefault(data[at:end].decode("utf-8", "replace"), entry)
            at = end + 1 + 8 + 1
        if pruned > 0:
            raise UserError(f"{self.path}: a pruned fastText model; wanted one with all its n-grams")
        (quantised,) = struct.unpack_from("<?", data, at)
        if quantised:
            raise UserError(
                f"{self.path}: a quantised fastText model (.ftz); wanted the .bin or the .vec file"
            )
        height, width = struct.unpack_from("<2q", data, at + 1)
        self._start = at + 17
        if width != self.dim or height != words + self._buckets:
            raise self._damaged(f"{height} × {width} numbers for {words} words and {self._buckets} n-grams")
        if self._start + 4 * height * width > len(data):
            raise self._damaged("its numbers are cut short")
        self.composes = self._longest > 0 and self._buckets > 0
        self._shape, self._words = (height, width), words

    def find(self, words: Collection[str]) -> dict[str, np.ndarray]:
        matrix = np.memmap(self.path, "<f4", "r", self._start, self._shape)
        found = {}
        for word in words:
            rows = [self._rows[word]] if word in self._rows else []
            if self.composes:
                rows += [self._words + bucket for bucket in self._parts(word)]
            if rows:
                vector = np.asarray(matrix[rows], np.float32).mean(0)
                if not np.isfinite(vector).all():
                    raise UserError(f'{self.path}: the vector of "{word}" is not finite')
                found[word] = vector
        return found

    def vocabulary(self) -> Iterator[str]:
        return iter(self._rows)

    def _parts(self, word: str) -> list[int]:
        """Buckets of the n-grams of "<word>"."""
        letters = f"<{word}>"
        parts = []
        for start in range(len(letters)):
            for length in range(self._shortest, self._longest + 1):
                end = start + length
                if end > len(letters) or (length == 1 and (start == 0 or end == len(letters))):
                    continue
                parts.append(_hash(letters[start:end].encode()) % self._buckets)
        return parts

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: not a whole fastText model ({what})")


def _hash(text: bytes) -> int:
    """fastText's: FNV-1a with the bytes extended by their sign."""
    value = 2166136261
    for byte in text:
        value ^= byte if byte < 128 else byte | 0xFFFFFF00
        value = value * 16777619 & 0xFFFFFFFF
    return value
