"""Normalisation of the class embeddings, fitted on the seen classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.engines.normalisation import Normalisation, fit_columns, whitening


class Descriptions(nn.Module):
    """One of `Normalisation`, saved with the model so that new classes are normalised as the seen ones were.

    Args:
        how: the normalisation of the columns; all but "none" also give each class unit length.
        size: m.
    """

    shift: Tensor
    factor: Tensor
    whitening: Tensor

    def __init__(self, how: Normalisation, size: int) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("factor", torch.ones(size))
        if how == "whiten":
            self.register_buffer("whitening", torch.eye(size))

    def fit(self, seen: Tensor) -> Tensor:
        """Fit on the descriptions (C_s, m) of the seen classes and return them normalised."""
        shift, factor = fit_columns(seen, self.how)
        self.shift, self.factor = shift.to(self.shift), factor.to(self.factor)
        if self.how == "whiten":
            self.whitening = whitening(F.normalize(seen.to(shift) - shift, dim=-1)).to(self.shift)
        return self(seen.to(self.shift.device))

    def forward(self, descriptions: Tensor) -> Tensor:
        """(C, m) -> (C, m) in the input's dtype."""
        shift, factor = self.shift.to(descriptions.dtype), self.factor.to(descriptions.dtype)
        scaled = (descriptions - shift) * factor
        if self.how == "none":
            return scaled
        rows = F.normalize(scaled, dim=-1)
        return F.normalize(rows @ self.whitening.to(rows), dim=-1) if self.how == "whiten" else rows
