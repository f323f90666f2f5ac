"""The user's own class embeddings, attributes or word vectors, from a CSV, .npz or .mat file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastzsl.data.formats.folder import read_classes
from fastzsl.errors import UserError, first_line, nearest
from fastzsl.files.matlab import read_mat

LARGEST_FILE = 1 << 30


def read_embeddings(path: Path, class_names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Embeddings of the classes `class_names`, in their order, from a file that names the classes.

    `.csv`: columns class,<number>... (a column `split` is ignored). `.npz`: `names` (C',) and
    `embeddings` (C', m). `.mat`: `att` (m, C') and `allclasses_names`, as in the proposed splits
    (`sent_splits.mat`). Names agree if they differ only in case, in a number before a dot, and in `_`, `+`,
    `-` or spaces.

    Returns:
        (C, m) float32, and the names of the m columns, if the file has any.

    Raises:
        UserError: not such a file, a class is missing in it, or numbers are not finite.
    """
    names, values, columns = _read_rows(path)
    rows = [names.index(found) for found in match_names(path, list(names), class_names)]
    return check_embeddings(path, values[rows], class_names), columns


def _read_rows(path: Path) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Names of the rows, numbers, and names of the columns, if the file has any."""
    columns: tuple[str, ...] = ()
    if path.suffix == ".csv":
        names, _, attributes, table = read_classes(path)
        columns, values = tuple(attributes), table.numpy()
    elif path.suffix == ".npz":
        names, values = _from_npz(path)
    elif path.suffix == ".mat":
        names, values = _from_mat(path)
    else:
        raise UserError(f"--class-embeddings {path}: wanted att, original_att, or a .csv, .npz or .mat file")
    if values.ndim != 2 or len(values) != len(names) or values.dtype.kind not in "uif" or not values.size:
        raise UserError(f"{path}: embeddings {values.shape} for {len(names)} classes; wanted a row a class")
    return list(names), values, columns


def read_attribute_vectors(path: Path, attribute_names: Sequence[str], count: int) -> np.ndarray:
    """Word vectors of the attributes, (m, k) float32, from a file as for `read_embeddings`, but with attributes' names.

    Args:
        path: the file.
        attribute_names: m names; empty if they are not known, then the order of the file's rows is used.
        count: m.

    Raises:
        UserError: not such a file, an attribute is missing in it, or another number of rows.
    """
    if attribute_names:
        return read_embeddings(path, attribute_names)[0].numpy()
    names, values, _ = _read_rows(path)
    if len(names) != count:
        raise UserError(f"{path}: {len(names)} vectors; the data set has {count} attributes")
    return check_embeddings(path, values, names).numpy()


def check_embeddings(path: Path, values: np.ndarray, class_names: Sequence[str]) -> Tensor:
    """(C, m) float32; raises `UserError` naming the first class with an entry that is not a finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow).all(1) | (np.abs(narrow) > 1e30).any(1))
    if len(bad):
        raise UserError(
            f"{path}: embeddings of {len(bad)} classes are NaN, infinite or huge, first {class_names[bad[0]]}"
        )
    return torch.from_numpy(np.ascontiguousarray(narrow))


def match_names(path: Path, found: list[str], wanted: Sequence[str]) -> list[str]:
    """The name in `found` of each wanted class: an equal name, or else one with an equal `plain_name`.

    Raises:
        UserError: a class without such a name, or with two.
    """
    exact = set(found)
    plain: dict[str, list[str]] = {}
    for name in found:
        plain.setdefault(plain_name(name), []).append(name)
    matched = []
    for name in wanted:
        close = [name] if name in exact else plain.get(plain_name(name), [])
        if not close:
            raise UserError(f"{path}: no embedding of class {name}{nearest(name, found)}")
        if len(close) > 1:
            raise UserError(f"{path}: class {name} could be {close[0]} or {close[1]}")
        matched.append(close[0])
    return matched


def plain_name(name: str) -> str:
    """A name in a common form, so that `001.Black_footed_Albatross` and `black footed albatross` are equal."""
    return re.sub(r"[\s_+\-]+", " ", re.sub(r"^\d+\.", "", name.strip())).strip().lower()


def _from_npz(path: Path) -> tuple[list[str], np.ndarray]:
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
                raise UserError(f"{path}: unpacks to more than {LARGEST_FILE >> 30} GiB")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("names", "embeddings") if name not in file.files]
            if missing:
                raise UserError(f"{path}: no array {missing[0]}; wanted names (C,) and embeddings (C, m)")
            names, values = file["names"], file["embeddings"]
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy raise different types
        said = first_line(error)
        raise UserError(f"{path}: not a whole .npz file of names and numbers ({said})") from None
    for name, array in (("names", names), ("embeddings", values)):
        if not isinstance(array, np.ndarray):  # numpy returns bytes for an entry that is not an array
            raise UserError(f"{path}: {name} is no array; wanted names (C,) and embeddings (C, m)")
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise UserError(f"{path}: names is {names.shape} of {names.dtype}; wanted texts (C,)")
    return [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names.tolist()], values


def _from_mat(path: Path) -> tuple[list[str], np.ndarray]:
    found = read_mat(path, ("att", "allclasses_names"))
    names, values = found.get("allclasses_names"), found.get("att")
    if not isinstance(names, list) or not isinstance(values, np.ndarray):
        raise UserError(f"{path}: wanted att (m, C) and allclasses_names")
    return names, values.T
