"""Feature and embedding scalings, fitted on training data only and saved with the model."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FeatureNorm = Literal["none", "unit", "standard", "minmax"]
"""
| choice | feature j of an image becomes |
|---|---|
| none | x_j |
| unit | x_j / the length of x |
| standard | (x_j - mean_j) / deviation_j |
| minmax | (x_j - minimum_j) / (maximum_j - minimum_j) |

Mean, deviation, minimum and maximum are those of the training images. A feature that is constant there becomes 0.
"""


class Scaling(nn.Module):
    """One of `FeatureNorm`, in float64 where it is fitted and in the input's dtype where it is applied.

    Args:
        how: the scaling.
        size: d.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, how: FeatureNorm, size: int) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("factor", torch.ones(size))

    def fit(self, features: Tensor) -> Tensor:
        """Fit on training features (N, d) and return them scaled."""
        if self.how in ("standard", "minmax"):
            wide = features.double()
            low, high = wide.amin(0), wide.amax(0)
            shift = wide.mean(0) if self.how == "standard" else low
            spread = wide.std(0, correction=0) if self.how == "standard" else high - low
            varies = high - low > 1e-6 * torch.maximum(low.abs(), high.abs()).clamp_min(1e-30)
            factor = torch.where(varies, spread, torch.inf).reciprocal()
            self.shift, self.factor = shift.float().to(self.shift), factor.float().to(self.factor)
        return self(features)

    def forward(self, features: Tensor) -> Tensor:
        if self.how == "none":
            return features
        if self.how == "unit":
            return F.normalize(features, dim=-1)
        return (features - self.shift.to(features.dtype)) * self.factor.to(features.dtype)
