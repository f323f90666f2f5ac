"""Responses of images to thresholds, w' min(x, v_s) or w' max(0, x - v_s), without the array (N, C_s, d)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["int", "relu"]
"""
| kind | phi_s(x), elementwise |
|---|---|
| int | min(x, v_s) |
| relu | max(0, x - v_s) |
"""
CHUNK = {"cpu": 2**20, "cuda": 2**26}
"""Entries of (images, C_s, d) that are computed at a time: as many as fit the cache, or keep a GPU busy."""

Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(responses (b, C_s), labels (b,)) -> a sum over the images, and its derivative by the responses."""


class Thresholds:
    """phi_s of all classes s.

    Args:
        kind: which phi.
        values: v (C_s, d).
    """

    def __init__(self, kind: Kind, values: Tensor) -> None:
        self.kind, self.values = kind, values

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """pi (B, C_s) of features (B, d) for w (d,)."""
        parts = [self._phi(features[rows]) @ weight for rows in self._chunks(features)]
        return torch.cat(parts) if parts else features.new_zeros(0, len(self.values))

    def accumulate(
        self, features: Tensor, labels: Tensor, weight: Tensor, slopes: Slopes, of_thresholds: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The sum that `slopes` gives over all images, and its derivatives by w (d,) and, if asked, by v (C_s, d)."""
        total, by_weight = weight.new_zeros(()), torch.zeros_like(weight)
        reached = torch.zeros_like(self.values) if of_thresholds else None
        for rows in self._chunks(features):
            phi = self._phi(features[rows])
            value, slope = slopes(phi @ weight, labels[rows])
            total += value
            by_weight += slope.flatten() @ phi.flatten(0, 1)
            if reached is not None:
                inside = (features[rows][:, None] > self.values).to(phi)
                reached += torch.einsum("bs,bsd->sd", slope, inside)
        sign = 1.0 if self.kind == "int" else -1.0
        return total, by_weight, None if reached is None else sign * weight * reached

    def _phi(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, C_s, d)."""
        if self.kind == "int":
            return torch.minimum(features[:, None], self.values)
        return (features[:, None] - self.values).clamp_min_(0)

    def _chunks(self, features: Tensor) -> Iterator[slice]:
        size = max(1, CHUNK.get(features.device.type, CHUNK["cpu"]) // self.values.numel())
        return (slice(start, start + size) for start in range(0, len(features), size))
