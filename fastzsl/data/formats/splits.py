"""The rules that every published split must keep, checked with the count and the first offenders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastzsl.errors import UserError

PARTS = ("trainval_loc", "test_seen_loc", "test_unseen_loc")


def whole_numbers(
    path: Path, name: str, values: object, first: int, count: int, may_be_empty: bool = False
) -> np.ndarray:
    """Indices or labels as int64 counted from 0.

    Args:
        path, name: for messages.
        values: as found in the file; uint16 and floats are usual.
        first: 1 for MATLAB's counting, 0 for Python's.
        may_be_empty: an array without numbers is no error.
        count: values run from `first` to `first + count - 1`.

    Raises:
        UserError: not whole numbers, or outside that range.
    """
    if may_be_empty and isinstance(values, np.ndarray) and not values.size:
        return np.empty(0, dtype=np.int64)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "uif" or not values.size:
        raise UserError(f"{path}: {name} is {_kind(values)}; wanted whole numbers")
    if max(values.shape) != values.size:
        raise UserError(f"{path}: {name} has shape {values.shape}; wanted one row or column")
    flat = values.ravel()
    if not np.isfinite(flat).all() or (flat != np.floor(flat)).any():
        bad = flat[~np.isfinite(flat) | (flat != np.floor(flat))]
        raise UserError(
            f"{path}: {len(bad)} entries of {name} are not whole numbers, first {bad[:3].tolist()}"
        )
    last = first + count - 1
    bad = flat[(flat < first) | (flat > last)]
    if len(bad):
        raise UserError(
            f"{path}: {len(bad)} entries of {name} are outside {first} to {last}, first {bad[:3].tolist()}: "
            "a file of another data set, or counted from another number?"
        )
    return flat.astype(np.int64) - first


@dataclass(frozen=True)
class Split:
    """Image indices counted from 0, and the class ids that they imply."""

    trainval: np.ndarray
    test_seen: np.ndarray
    test_unseen: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray


def check_split(
    path: Path, parts: dict[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]
) -> Split:
    """Seen and unseen classes of a split that keeps the rules.

    Args:
        parts: `PARTS` by name, counted from 0 and within range.
        labels: (N,) class id of each image.

    Raises:
        UserError: a part names an image twice, two parts share images, seen and unseen classes overlap,
            an image of test_seen has an unseen class, or all images of a class are left out.
    """
    for name in PARTS:
        values, times = np.unique(parts[name], return_counts=True)
        if (times > 1).any():
            twice = values[times > 1]
            raise UserError(
                f"{path}: {name} names {len(twice)} images twice, first {twice[:3].tolist()} (from 0)"
            )
    for i, one in enumerate(PARTS):
        for other in PARTS[i + 1 :]:
            shared = np.intersect1d(parts[one], parts[other])
            if len(shared):
                raise UserError(
                    f"{path}: {len(shared)} images are in {one} and {other}, "
                    f"first {shared[:3].tolist()} (from 0)"
                )
    trainval, test_seen, test_unseen = (parts[name] for name in PARTS)
    seen, unseen = np.unique(labels[trainval]), np.unique(labels[test_unseen])
    both = np.intersect1d(seen, unseen)
    if len(both):
        raise UserError(
            f"{path}: {len(both)} classes are in trainval_loc and test_unseen_loc, first "
            f"{[class_names[c] for c in both[:3]]}: labels and split do not belong together"
        )
    strange = test_seen[~np.isin(labels[test_seen], seen)]
    if len(strange):
        raise UserError(
            f"{path}: {len(strange)} images of test_seen_loc have a class without training images, "
            f"first {strange[:3].tolist()} (from 0)"
        )
    absent = np.setdiff1d(np.arange(len(class_names)), np.concatenate([seen, unseen]))
    forgotten = np.intersect1d(absent, labels)
    if len(forgotten):
        raise UserError(
            f"{path}: {len(forgotten)} classes have no image in trainval_loc or test_unseen_loc, first "
            f"{[class_names[c] for c in forgotten[:3]]}"
        )
    # A class without any image can be recognised by its description: it is unseen, without a test.
    return Split(trainval, test_seen, test_unseen, seen, np.union1d(unseen, absent))


def _kind(values: object) -> str:
    if values is None:
        return "missing"
    return f"{values.shape} of {values.dtype}" if isinstance(values, np.ndarray) else "texts"
