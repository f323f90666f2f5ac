"""Normalisation of class embeddings: columns on one scale, fitted on the seen classes, then rows of unit length."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["none", "unit", "centre", "standardise", "range", "whiten"]
"""
| choice | column j of K becomes | rows |
|---|---|---|
| none | K_j | as they are |
| unit | K_j | unit length |
| centre | K_j - mean | unit length |
| standardise | (K_j - mean) / standard deviation | unit length |
| range | (K_j - minimum) / (maximum - minimum) | unit length |
| whiten | K_j - mean | unit length, then `whitening`, then unit length |

Mean, deviation, minimum, maximum and whitening are those of the seen classes.
"""
CONSTANT = 1e-6
"""A column counts as constant if its spread is a smaller share of its size; such a spread is rounding error."""

WHITENING = 1 / 3
"""Exponent of the singular values' shares. 0 changes nothing, and with 1 all directions count the same."""

SPANNED = 1e-5
"""A direction belongs to the span if its singular value is a larger share of the largest one; others are rounding."""


def fit_columns(seen: Tensor, how: Normalisation) -> tuple[Tensor, Tensor]:
    """The shift that is subtracted from every column, and the factor by which the result is multiplied.

    Nothing can be learned from a column with the same value for all seen classes. If columns are divided by their
    spread, such a column becomes 0, for new classes too.

    Args:
        seen: (C_s, m) embeddings of the seen classes.

    Returns:
        shift (m,) and factor (m,), float32.
    """
    seen = seen.float()
    low, high = seen.min(0).values, seen.max(0).values
    shift, factor = torch.zeros_like(low), torch.ones_like(low)
    if how in ("centre", "standardise", "whiten"):
        shift = seen.mean(0)
    if how == "range":
        shift = low
    if how in ("standardise", "range"):
        spread = high - low if how == "range" else seen.std(0, correction=0)
        varies = high - low > CONSTANT * torch.maximum(low.abs(), high.abs())
        varies &= spread > torch.finfo(spread.dtype).tiny  # so that the reciprocal is finite
        factor = torch.where(varies, spread, torch.inf).reciprocal()
    return shift, factor


def span(rows: Tensor) -> Tensor:
    """An orthonormal basis of the space that the rows span.

    Args:
        rows: (C, m).

    Returns:
        (m, r) of the rows' type, with r the number of singular values above rounding error; computed in float64.
    """
    return _principal(rows)[0].to(rows)


def whitening(rows: Tensor) -> Tensor:
    """The matrix M = sum over i of v_i v_i' / (s_i / s_1)^(1/3), which makes the principal directions v_i more alike.

    A few directions, in which all classes differ much, otherwise decide almost alone how near two classes are.
    Directions that the rows do not span become 0.

    Args:
        rows: (C_s, m) normalised embeddings of the seen classes, with singular values s_i.

    Returns:
        (m, m) of the rows' type, symmetric; computed in float64. Multiply rows (C, m) with it.
    """
    basis, sizes = _principal(rows)
    return ((basis / (sizes / sizes[0]) ** WHITENING) @ basis.mT).to(rows)


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Principal directions (m, r) and their singular values (r,) above rounding error, float64."""
    _, sizes, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    kept = sizes > SPANNED * sizes[0]
    return directions[kept].mT.contiguous(), sizes[kept]
