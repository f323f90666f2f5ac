"""Views of an image: itself, its mirror image, and a part of it. Each view has its own file of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fastzsl.features.sources import ImageSource, RegionSource

Views = Literal["one", "flip", "crops"]
WHOLE = "whole"
VIEWS: dict[Views, tuple[str, ...]] = {
    "one": (WHOLE,),
    "flip": (WHOLE, "mirror"),
    "crops": (WHOLE, "mirror", "centre", "centre-mirror"),
}
"""Setting -> names of the views; the first is the whole image."""
CENTRE = 0.75
"""Side of the view "centre" as a share of the image's."""


def view_of(image: Image.Image, view: str) -> Image.Image:
    """A view of an image: "whole", "mirror", "centre" or "centre-mirror"."""
    if view.startswith("centre"):
        width, height = (max(1, round(CENTRE * side)) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(image) if view.endswith("mirror") else image


class ViewedImages:
    """One view of each image of a source."""

    def __init__(self, images: ImageSource, view: str) -> None:
        self._images, self._view = images, view

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        return view_of(self._images.image(index), self._view)

    def mask(self, index: int) -> np.ndarray | None:
        return None

    def describe(self, index: int) -> str:
        return f"{self._images.describe(index)} ({self._view})"


def draw_regions(sources: Sequence[RegionSource], indices: Tensor, count: int, draw: int) -> Tensor:
    """Regions (B, T, d) of images, each in a view drawn at random.

    The view of an image depends only on `draw` and on the image, not on the other images of the batch, so that the
    processes of one training draw the same views as a single process.

    Args:
        sources: one for each view.
        indices: (B,) images of the sources, each below `count`.
        count: number of images in a source.
        draw: decides the random numbers.
    """
    generator = torch.Generator().manual_seed(draw ^ 0x5EED)  # not the numbers that the step itself draws
    views = torch.randint(len(sources), (count,), generator=generator)[indices]
    found: Tensor | None = None
    for view, source in enumerate(sources):
        rows = (views == view).nonzero().flatten()
        if len(rows):
            regions = source.regions(indices[rows])
            if found is None:
                found = regions.new_empty(len(indices), *regions.shape[1:])
            found[rows] = regions
    assert found is not None, "a batch has images"
    return found
