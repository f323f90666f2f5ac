"""Several backbones that look at the same image: their maps side by side, as one map with more channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from fastzsl.errors import UserError
from fastzsl.features.trunks import Preprocessing

SIGN = "+"
"""Between the names."""
UNCHANGED = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SMALLEST = 1e-12


def split_names(name: str) -> list[str]:
    """The backbones of `NAME+NAME+…`; one if there is no sign.

    Raises:
        UserError: a name is missing, or stands there twice.
    """
    names = name.split(SIGN)
    if not all(names):
        raise UserError(f'backbone "{name}" has a {SIGN} without a name on both sides; wanted NAME{SIGN}NAME')
    if len(set(names)) < len(names):
        raise UserError(f'backbone "{name}" names one twice')
    return names


class SideBySide(nn.Module):
    """The trunk of several backbones, to be used with `side_by_side_maps`.

    Args:
        backbones: `fastzsl.features.backbones.Backbone` of one image size.
    """

    def __init__(self, backbones: Sequence[Any]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)
        self.side = min(backbone.grid[0] for backbone in backbones)

    @property
    def preprocessing(self) -> Preprocessing:
        """None but the size: each backbone normalises the pixels with its own mean and deviation."""
        first: Any = self.backbones[0]
        return Preprocessing(first.image_size, *UNCHANGED)


def side_by_side_maps(trunk: Any, images: Tensor) -> Tensor:
    """Feature maps (B, d_1 + d_2 + …, h, h) of several backbones.

    A finer grid is averaged to the coarsest one. Then each backbone's map of an image is divided by its root mean
    square, r_i = sqrt(mean of m_i²), so that none outweighs another: [m_1 / r_1; m_2 / r_2; …].

    Args:
        trunk: `SideBySide`.
        images: (B, 3, H, W) in [0, 1].
    """
    parts = []
    for backbone in trunk.backbones:
        maps = backbone(images)
        if maps.shape[-1] != trunk.side:
            maps = adaptive_avg_pool2d(maps, trunk.side)
        size = maps.square().mean((1, 2, 3), keepdim=True).sqrt()
        parts.append(maps / size.clamp_min(SMALLEST))
    return torch.cat(parts, 1)
