"""Class embeddings as the model sees them: columns on one scale, fitted on the seen classes, rows of unit length."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["none", "unit", "centre", "standardise", "range"]
"""
| choice | column j of K becomes | rows |
|---|---|---|
| none | K_j | as they are |
| unit | K_j | unit length |
| centre | K_j - mean | unit length |
| standardise | (K_j - mean) / standard deviation | unit length |
| range | (K_j - minimum) / (maximum - minimum) | unit length |

Mean, deviation, minimum and maximum are those of the seen classes.
"""
CONSTANT = 1e-6
"""A column whose spread is a smaller share of its size is constant: what is left is rounding."""


def fit_columns(seen: Tensor, how: Normalisation) -> tuple[Tensor, Tensor]:
    """What to subtract from every column, and then what to multiply it by.

    A column that all seen classes share tells nothing that can be learned; where columns are divided by their
    spread it becomes 0, for new classes too.

    Args:
        seen: (C_s, m) embeddings of the seen classes.

    Returns:
        shift (m,) and factor (m,), float32.
    """
    seen = seen.float()
    low, high = seen.min(0).values, seen.max(0).values
    shift, factor = torch.zeros_like(low), torch.ones_like(low)
    if how in ("centre", "standardise"):
        shift = seen.mean(0)
    if how == "range":
        shift = low
    if how in ("standardise", "range"):
        spread = high - low if how == "range" else seen.std(0, correction=0)
        varies = high - low > CONSTANT * torch.maximum(low.abs(), high.abs())
        varies &= spread > torch.finfo(spread.dtype).tiny  # whose reciprocal is still finite
        factor = torch.where(varies, spread, torch.inf).reciprocal()
    return shift, factor
