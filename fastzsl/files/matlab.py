"""MATLAB files: version 5 (read by SciPy) and 7.3 (HDF5), as arrays in MATLAB's own orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastzsl.errors import UserError
from fastzsl.files.hdf5 import read_hdf5
from fastzsl.files.sandbox import read_sandboxed
from fastzsl.files.special import refuse_special


def read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray | list[str]]:
    """Read some variables of a file; names that the file does not have are left out.

    Args:
        path: the file, of either version.
        names: the variables wanted.

    Returns:
        Numeric variables as arrays of two dimensions or more; cell arrays of texts as lists.

    Raises:
        UserError: no such file, cut short, damaged, or a variable of another type.
    """
    refuse_special(path)
    if not path.is_file():
        raise UserError(f"no file {path}")
    with open(path, "rb") as file:
        start = file.read(520)
    if start[:4] == b"\x89HDF" or start[512:516] == b"\x89HDF":  # 7.3 puts a text of 512 bytes before it
        contents = read_hdf5(path, names)
        numbers = {name: np.atleast_2d(array).T for name, array in contents.arrays.items()}
        return {**numbers, **contents.texts}
    reply, numbers = read_sandboxed("mat", path, names)
    return {**numbers, **reply["texts"]}
