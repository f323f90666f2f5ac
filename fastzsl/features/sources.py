"""Sources of images and region features, which are read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastzsl.features.stored import Stored


@runtime_checkable
class ImageSource(Protocol):
    """N images, drawn or decoded when they are needed."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB."""

    def mask(self, index: int) -> np.ndarray | None:
        """Bool mask (height, width) of the image's object, or None where it is not known."""

    def describe(self, index: int) -> str:
        """The image's name in messages, such as the file's path."""


@runtime_checkable
class RegionSource(Protocol):
    """Region features of N images."""

    feature_shape: tuple[int, int, int]
    """(d, h, w) of one image's feature map."""

    def __len__(self) -> int: ...

    def regions(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Features (B, T, d) of the images `indices`, T = h·w, in the stored dtype."""


class MemoryRegions:
    """Region features held in memory.

    Args:
        feature_maps: (N, d, h, w), any floating dtype.
    """

    def __init__(self, feature_maps: Tensor) -> None:
        if feature_maps.ndim != 4:
            raise ValueError(f"feature_maps has {feature_maps.ndim} dimensions; wanted 4: (N, d, h, w)")
        self.feature_shape = (feature_maps.shape[1], feature_maps.shape[2], feature_maps.shape[3])
        # A region's features are stored next to each other, because every later step reads them so. A batch is then a
        # copy of whole rows.
        self._regions = feature_maps.flatten(2).transpose(1, 2).contiguous()

    def __len__(self) -> int:
        return len(self._regions)

    def regions(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self._regions[torch.as_tensor(indices, dtype=torch.long)]

    def stored(self, indices: Tensor) -> Stored:
        """The features of a batch, which are not copied yet."""
        return Stored(self._regions, indices)


def stored_regions(source: RegionSource, indices: Tensor) -> Stored:
    """The features of the images `indices` (B,), copied only if `source` does not hold them in memory."""
    return source.stored(indices) if hasattr(source, "stored") else Stored(source.regions(indices))
