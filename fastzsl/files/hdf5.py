"""Read the contents of an HDF5 file. No file, however damaged, can crash or hang this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastzsl.errors import UserError
from fastzsl.files.sandbox import read_sandboxed
from fastzsl.files.special import refuse_special


@dataclass(frozen=True)
class Maps:
    """A data set of N equal rows, and where the rows are in the file.

    Attributes:
        shape: (N, ...).
        dtype: numpy's type.
        offsets: (N,) int64, the byte at which each row starts in the file; None if rows are compressed,
            converted or share chunks, so that only the HDF5 library can read them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offsets: np.ndarray | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class Contents:
    """Arrays and texts by name, the layout of the maps, and the note that names the program that made the file."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    maps: Maps | None
    made_by: str | None


def read_hdf5(path: Path, arrays: Sequence[str] = (), maps: str | None = None) -> Contents:
    """Read small data sets and the layout of a large one.

    Args:
        path: the file.
        arrays: names of data sets to read completely; names that the file does not have are left out.
        maps: name of the data set whose layout is wanted.

    Raises:
        UserError: no such file; not HDF5, cut short or damaged; with links to other files.
    """
    refuse_special(path)
    if not path.is_file():
        raise UserError(f"no file {path}")
    reply, found = read_sandboxed("hdf5", path, arrays, maps)
    offsets = found.pop("maps offsets", None)
    layout = None
    if reply["maps"] is not None:
        layout = Maps(tuple(reply["maps"]["shape"]), np.dtype(reply["maps"]["dtype"]), offsets)
        _check_offsets(path, layout, path.stat().st_size)
    return Contents(found, reply["texts"], layout, reply["made_by"])


def _check_offsets(path: Path, maps: Maps, size: int) -> None:
    if maps.offsets is None:
        return
    missing = np.flatnonzero(maps.offsets < 0)
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of {maps.shape[0]} images were never written, "
            f"first {missing[:3].tolist()}"
        )
    ordered = np.sort(maps.offsets)
    if len(ordered) and (
        int(ordered[-1]) + maps.row_bytes > size or bool((np.diff(ordered) < maps.row_bytes).any())
    ):
        raise UserError(f"{path}: damaged: images overlap or lie outside the file")
