"""The user's own class embeddings, attributes or word vectors, for the classes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastzsl.data.descriptions.names import match_names
from fastzsl.data.descriptions.reading import read_descriptions
from fastzsl.errors import UserError


def read_embeddings(path: Path, class_names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Embeddings of the classes `class_names`, in their order, from a file for `read_descriptions`.

    Names agree if they differ only in case, in a number before a dot, and in `_`, `+`, `-` or spaces.

    Returns:
        (C, m) float32, and the names of the m columns, if the file has any.

    Raises:
        UserError: not such a file, a class is missing in it, or numbers are not finite.
    """
    found = read_descriptions(path, class_names)
    found.refuse_missing()
    rows = [found.names.index(name) for name in match_names(path, found.names, class_names)]
    return check_embeddings(path, found.values[rows], class_names), tuple(found.attributes)


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
    found = read_descriptions(path)
    found.refuse_missing()
    if len(found.names) != count:
        raise UserError(f"{path}: {len(found.names)} vectors; the data set has {count} attributes")
    return check_embeddings(path, found.values, found.names).numpy()


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
