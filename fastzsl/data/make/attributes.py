"""Missing values and unusual properties of class attributes, judged by the seen classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fastzsl.errors import UserError

UNEQUAL = 10.0
"""If the spreads of two attributes differ by more than this factor, a note is given."""
YES_NO_RANGE = 2.0
"""Numbers of a larger range beside yes and no are on another scale."""


def fill_missing(
    values: np.ndarray,
    unseen: np.ndarray,
    how: Literal["error", "mean", "zero"],
    names: Sequence[str],
    attributes: Sequence[str],
) -> tuple[np.ndarray, list[str]]:
    """Numbers for the empty cells of (C, m), and notes.

    Args:
        unseen: (C,) bool; the mean is that of the seen classes.
        how: "error", "mean" or "zero".

    Raises:
        UserError: empty cells with "error"; an attribute that no seen class has, with "mean".
    """
    missing = np.isnan(values)
    if not missing.any():
        return values, []
    row, column = np.argwhere(missing)[0]
    where = f"{int(missing.sum())} empty cells, first {names[row]}, {attributes[column]}"
    if how == "error":
        raise UserError(f"{where}; fill them in, or choose --missing mean or zero")
    filled = np.where(missing, 0.0, values)
    if how == "mean":
        seen = ~missing & ~unseen[:, None]
        known = seen.sum(0)
        if (known[missing.any(0)] == 0).any():
            lacking = [a for a, k, m in zip(attributes, known, missing.any(0)) if m and not k]
            raise UserError(f"attribute {lacking[0]} is empty for every seen class; --leave-out it")
        mean = np.where(seen, values, 0.0).sum(0) / np.maximum(known, 1)
        filled = np.where(missing, mean, values)
    return filled, [f"{where}; filled with {'the mean of the seen classes' if how == 'mean' else '0'}"]


def unequal_scales(values: np.ndarray, unseen: np.ndarray) -> tuple[int, int] | None:
    """Two columns of (C, m) that are on different scales over the seen classes, the larger first, if there are any.

    Their spreads differ by more than `UNEQUAL`, or one says yes or no and the other has numbers of a range above
    `YES_NO_RANGE`.
    """
    seen = values[~unseen]
    spread, extent = seen.std(0), np.ptp(seen, axis=0)
    varying = np.flatnonzero(spread > 0)
    if not len(varying):
        return None
    largest, smallest = varying[spread[varying].argmax()], varying[spread[varying].argmin()]
    if spread[largest] > UNEQUAL * spread[smallest]:
        return int(largest), int(smallest)
    binary = [i for i in varying if np.isin(seen[:, i], (0, 1)).all()]
    if binary and extent[largest] > YES_NO_RANGE:
        return int(largest), int(min(binary, key=lambda i: spread[i]))
    return None


def describe_attributes(
    values: np.ndarray, unseen: np.ndarray, names: Sequence[str], attributes: Sequence[str]
) -> list[str]:
    """Lines of information for the user about the numbers.

    Raises:
        UserError: no attribute differs between seen classes.
    """
    seen = values[~unseen]
    spread = seen.std(0)
    notes = [f"{len(attributes)} attributes from {values.min():g} to {values.max():g}"]
    if not (spread > 0).any():
        raise UserError("all seen classes have the same attributes; they must tell the classes apart")
    constant = [a for a, s in zip(attributes, spread) if s == 0]
    if constant:
        notes.append(
            f"{len(constant)} attributes are the same for all seen classes, so nothing can be learned of "
            f"them: {', '.join(constant[:5])}"
        )
    if unequal := unequal_scales(values, unseen):
        largest, smallest = unequal
        notes.append(
            f"attributes are on unequal scales: {attributes[largest]} spreads {spread[largest]:.3g}, "
            f"{attributes[smallest]} {spread[smallest]:.3g}, and the first drowns the second; train with "
            "--embedding-normalisation standardise"
        )
    else:
        notes.append("attributes are on similar scales; the default, --embedding-normalisation centre, fits")
    equal = [
        (names[i], names[j])
        for i in range(len(values))
        for j in range(i)
        if np.array_equal(values[i], values[j])
    ]
    if equal:
        notes.append(
            f"{len(equal)} pairs of classes have the same attributes and cannot be told apart, first "
            f"{equal[0][1]} and {equal[0][0]}"
        )
    return notes
