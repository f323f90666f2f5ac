"""The one reader of files that describe classes by numbers: tables of text, .npz and .mat."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastzsl.data.descriptions.table import read_table
from fastzsl.errors import UserError, first_line
from fastzsl.files.matlab import read_mat
from fastzsl.files.special import refuse_special

LARGEST_FILE = 1 << 30
LARGEST_NUMBER = 1e30
TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Descriptions:
    """Classes and numbers that describe them.

    Attributes:
        path: of the file.
        names: C class names.
        splits: "seen" or "unseen" for each class, or None if the file does not say.
        attributes: m names, or empty if the file has none.
        values: (C, m) float64, NaN for an empty cell.
        left_out: columns with words, or without content.
        class_column, split_column: headers of the columns used so.
    """

    path: Path
    names: list[str]
    splits: list[str] | None
    attributes: list[str]
    values: np.ndarray
    left_out: list[str] = field(default_factory=list)
    class_column: str = "class"
    split_column: str | None = None

    def refuse_missing(self) -> None:
        """Raise `UserError` naming the first empty cell, if there is one."""
        missing = np.argwhere(np.isnan(self.values))
        if len(missing):
            row, column = missing[0].tolist()
            where = f", {self.attributes[column]}" if self.attributes else ""
            raise UserError(
                f"{self.path}: {len(missing)} empty cells or NaN, first {self.names[row]}{where}; wanted finite numbers"
            )

    def refuse_words(self) -> None:
        """Raise `UserError` naming the first column that has no numbers, if there is one."""
        if self.left_out:
            raise UserError(
                f'{self.path}: column "{self.left_out[0]}" has no numbers; wanted numbers, or yes and no, '
                "in every column beside class and split"
            )

    def refuse_repeated(self) -> None:
        """Raise `UserError` naming the first class that has several rows, if there is one."""
        counts = Counter(self.names)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise UserError(
                f"{self.path}: class {twice[0]} is in {counts[twice[0]]} rows; wanted one row for each class"
            )


def read_descriptions(
    path: Path,
    known_classes: Sequence[str] = (),
    *,
    class_column: str | None = None,
    split_column: str | None = None,
    leave_out: Sequence[str] = (),
) -> Descriptions:
    """Read a file that describes classes.

    `.csv`, `.tsv`, `.txt`: a table as for `read_table`. `.npz`: `names` (C,), `embeddings` (C, m) and perhaps
    `attributes` (m,). `.mat`: `att` (m, C) and `allclasses_names`, as in the proposed splits (`sent_splits.mat`).

    Args:
        path: the file.
        known_classes: names by which a table's column of class names is found.
        class_column, split_column: headers of these columns of a table; default: found by content and by name.
        leave_out: headers of a table's columns that are no attributes.

    Raises:
        UserError: anything unclear in the file.
    """
    refuse_special(path, "a file of class descriptions")
    if path.is_dir():
        raise UserError(f"{path} is a folder; wanted a file of class descriptions")
    if path.suffix.lower() in (".npz", ".mat"):
        read = _from_npz if path.suffix.lower() == ".npz" else _from_mat
        names, attributes, values = read(path)
        _check(path, names, attributes, values)
        return Descriptions(path, names, None, attributes, values.astype(np.float64))
    if path.suffix.lower() not in TABLES:
        raise UserError(f"{path}: wanted a table (.csv, .tsv or .txt), or an .npz or .mat file")
    table = read_table(
        path, known_classes, class_column=class_column, split_column=split_column, leave_out=leave_out
    )
    return Descriptions(path, *table)


def _check(path: Path, names: list[str], attributes: list[str], values: np.ndarray) -> None:
    if values.ndim != 2 or len(values) != len(names) or values.dtype.kind not in "uif" or not values.size:
        raise UserError(f"{path}: embeddings {values.shape} for {len(names)} classes; wanted a row a class")
    if len(attributes) not in (0, values.shape[1]) or len(set(attributes)) != len(attributes):
        raise UserError(
            f"{path}: {len(set(attributes))} different attribute names for {values.shape[1]} numbers a class"
        )
    bad = ~(np.isnan(values) | (np.abs(values) <= LARGEST_NUMBER)).all(1)
    if bad.any():
        first = names[int(bad.argmax())]
        raise UserError(f"{path}: embeddings of {int(bad.sum())} classes are infinite or huge, first {first}")


def _from_npz(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
                raise UserError(f"{path}: unpacks to more than {LARGEST_FILE >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            columns = file["attributes"] if "attributes" in file.files else np.empty(0, dtype="U1")
            missing = [name for name in ("names", "embeddings") if name not in file.files]
            if missing:
                raise UserError(f"{path}: no array {missing[0]}; wanted names (C,) and embeddings (C, m)")
            names, values = file["names"], file["embeddings"]
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy raise different types
        said = first_line(error)
        raise UserError(f"{path}: not a whole .npz file of names and numbers ({said})") from None
    for name, array in (("names", names), ("embeddings", values), ("attributes", columns)):
        if not isinstance(array, np.ndarray):  # numpy returns bytes for an entry that is not an array
            raise UserError(f"{path}: {name} is no array; wanted names (C,) and embeddings (C, m)")
    for name, texts in (("names", names), ("attributes", columns)):
        if texts.ndim != 1 or texts.dtype.kind not in "US":
            raise UserError(f"{path}: {name} is {texts.shape} of {texts.dtype}; wanted texts")
    return _texts(names), _texts(columns), values


def _texts(array: np.ndarray) -> list[str]:
    return [t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in array.tolist()]


def _from_mat(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    found = read_mat(path, ("att", "allclasses_names"))
    names, values = found.get("allclasses_names"), found.get("att")
    if not isinstance(names, list) or not isinstance(values, np.ndarray):
        raise UserError(f"{path}: wanted att (m, C) and allclasses_names")
    return names, [], values.T
