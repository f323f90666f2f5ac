"""MATLAB files: version 5 (read by SciPy) and 7.3 (HDF5), as arrays in MATLAB's own orientation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io

from fastzsl.data.hdf5 import read_hdf5
from fastzsl.errors import UserError

MOST_NUMBERS = 1 << 30
"""A variable that claims more entries is refused before it is read."""
TEXTS = ("cell", "char")


def read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray | list[str]]:
    """Read some variables of a file; those that it lacks are left out.

    Args:
        path: the file, of either version.
        names: the variables wanted.

    Returns:
        Numeric variables as arrays of two dimensions or more; cell arrays of texts as lists.

    Raises:
        UserError: no such file, cut short, damaged, or a variable of another type.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    with open(path, "rb") as file:
        start = file.read(520)
    if start[:4] == b"\x89HDF" or start[512:516] == b"\x89HDF":  # 7.3 puts a text of 512 bytes before it
        contents = read_hdf5(path, names)
        numbers = {name: np.atleast_2d(array).T for name, array in contents.arrays.items()}
        return {**numbers, **contents.texts}
    try:
        kinds = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
        _check_sizes(path, {name: kinds[name] for name in names if name in kinds})
        found = scipy.io.loadmat(path, variable_names=list(names))
    except UserError:
        raise
    except Exception as error:  # SciPy's parser meets damage with whatever fails first
        said = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{path}: not a whole MATLAB file ({said})") from None
    return {name: _plain(path, name, found[name]) for name in names if name in found}


def _check_sizes(path: Path, kinds: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Damage to a variable's dimensions must not make SciPy take all memory."""
    most = min(MOST_NUMBERS, 1100 * path.stat().st_size)  # zlib packs no tighter than that
    for name, (shape, _) in kinds.items():
        if min(shape, default=0) < 0 or math.prod(map(int, shape)) > most:
            raise UserError(f"{path}: {name} claims the shape {tuple(shape)}; the file is too short for it")


def _plain(path: Path, name: str, value: object) -> np.ndarray | list[str]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "uif" and value.ndim >= 2:
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        cells = [np.asarray(cell) for cell in value.ravel()]
        if all(cell.dtype.kind == "U" and cell.size <= 1 for cell in cells):
            return ["".join(cell.ravel().tolist()) for cell in cells]
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return [str(text).rstrip() for text in value.ravel()]
    raise UserError(f"{path}: {name} is neither numbers nor a cell array of texts")
