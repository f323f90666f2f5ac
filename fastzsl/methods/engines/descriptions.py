"""Normalisation of the class embeddings, fitted on the seen classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.engines.normalisation import Normalisation, fit_columns


class Descriptions(nn.Module):
    """One of `Normalisation`, saved with the model so that new classes are normalised as the seen ones were.

    Args:
        how: the normalisation of the columns; all but "none" also give each class unit length.
        size: m.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, how: Normalisation, size: int) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("factor", torch.ones(size))

    def fit(self, seen: Tensor) -> Tensor:
        """Fit on the descriptions (C_s, m) of the seen classes and return them normalised."""
        shift, factor = fit_columns(seen, self.how)
        self.shift, self.factor = shift.to(self.shift), factor.to(self.factor)
        return self(seen.to(self.shift.device))

    def forward(self, descriptions: Tensor) -> Tensor:
        """(C, m) -> (C, m) in the input's dtype."""
        shift, factor = self.shift.to(descriptions.dtype), self.factor.to(descriptions.dtype)
        scaled = (descriptions - shift) * factor
        return scaled if self.how == "none" else F.normalize(scaled, dim=-1)
