"""Predictions for many images in one file: CSV, JSON lines or Parquet. A command that was stopped continues."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fastzsl.errors import UserError
from fastzsl.files.atomic import write_atomically

COLUMNS = ("image", "rank", "class", "kind", "score", "probability", "none_of_these", "heatmap", "error")
"""Columns of CSV and Parquet: a row for each image and rank, or one with an error."""
FORMATS = (".csv", ".jsonl", ".parquet")
ROWS = 10_000
"""Rows of Parquet in memory at a time."""


class PredictionFile:
    """Entries are appended to a journal, `<path>.partial`, which becomes the file when all images are in it.

    Args:
        path: `.csv`, `.jsonl` or `.parquet`.
        identity: everything that decides the entries, but not the images.

    Raises:
        UserError: another ending, a file that is there already, no pyarrow for Parquet, or a journal of other settings.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        check_output(path)
        self.path, self.journal = path, path.with_name(path.name + ".partial")
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def begin(self, images: list[Path]) -> int:
        """Open the journal; the number of images, from the first, that it has entries of.

        Raises:
            UserError: the journal is of other settings or of other images.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        done, end = 0, 0
        if self.journal.exists():
            other = UserError(
                f"{self.journal} was begun with another run, other classes, settings or images; remove it, or "
                "choose another --out"
            )
            with open(self.journal, "rb") as file:
                for number, line in enumerate(file):
                    if not line.endswith(b"\n"):
                        break  # cut short when the program was stopped
                    entry = _parsed(line, self.journal)
                    if number == 0:
                        if entry.get("identity") != self._identity:
                            raise other
                    elif done >= len(images) or entry.get("image") != str(images[done]):
                        raise other
                    else:
                        done += 1
                    end += len(line)
        self._file: IO[bytes] = open(self.journal, "r+b" if end else "wb")  # noqa: SIM115
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write({"identity": self._identity})
        return done

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append the entry of the next image."""
        self._write(entry)

    def finish(self) -> None:
        """Write the file from the journal, in limited memory, and remove the journal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        write = {".csv": _write_csv, ".jsonl": _write_lines, ".parquet": _write_parquet}[
            self.path.suffix.lower()
        ]
        write_atomically(self.path, lambda partial: write(self._entries(), partial))
        self.journal.unlink()

    def close(self) -> None:
        """Keep the journal for the next call."""
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def _entries(self) -> Iterator[dict[str, Any]]:
        with open(self.journal, "rb") as file:
            next(file)
            for line in file:
                yield _parsed(line, self.journal)


def check_output(path: Path) -> None:
    """Raise `UserError` if no file of predictions can be made at `path`."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--out {path}: wanted a file that ends with {', '.join(FORMATS)}")
    if path.exists():
        raise UserError(f"--out {path} exists; remove it, or choose another")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"--out {path}: {parent} is no folder")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def rows_of(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of an image, with `COLUMNS` as keys."""
    empty = dict.fromkeys(COLUMNS)
    if "error" in entry:
        yield {**empty, "image": entry["image"], "error": entry["error"]}
        return
    for rank, row in enumerate(entry["predictions"], start=1):
        none = entry.get("none_of_these")
        yield {**empty, "image": entry["image"], "rank": rank, "none_of_these": none, **row}


def _write_csv(entries: Iterator[dict[str, Any]], path: Path) -> None:
    # Names of files may be in any encoding; their bytes are written as they are.
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for entry in entries:
            writer.writerows(rows_of(entry))


def _write_lines(entries: Iterator[dict[str, Any]], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def _write_parquet(entries: Iterator[dict[str, Any]], path: Path) -> None:
    pa, parquet = _pyarrow()
    types = {
        "rank": pa.int32(),
        "score": pa.float32(),
        "probability": pa.float32(),
        "none_of_these": pa.bool_(),
    }
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in _chunks(row for entry in entries for row in rows_of(entry)):
            texts = [{k: _utf8(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
            writer.write_table(pa.Table.from_pylist(texts, schema))


def _utf8(text: str) -> str:
    """The text, with the bytes of a name in another encoding written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError("Parquet needs pyarrow: pip install 'fastzsl[parquet]', or --out FILE.csv") from None


def _parsed(line: bytes, journal: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise UserError(f"{journal}: not whole; remove it to start again")
    return entry


@contextmanager
def kept_when_stopped(file: PredictionFile) -> Iterator[None]:
    """Close the journal when the command is stopped, so that the next call continues it."""
    try:
        yield
    finally:
        file.close()
