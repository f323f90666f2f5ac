"""Small images, a small backbone and hand-made feature files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn

from fastzsl.features.backbones import Backbone
from fastzsl.features.trunks import Preprocessing


class Noise:
    """Images of 16 × 16 random pixels; `drawn` lists those that were asked for."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.drawn: list[int] = []

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Image.Image:
        self.drawn.append(index)
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def mask(self, index: int) -> None:
        return None

    def describe(self, index: int) -> str:
        return f"noise {index}"


def tiny_backbone(scale: float = 1.0) -> Backbone:
    """3 × 16 × 16 images to 5 × 4 × 4 maps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = nn.Conv2d(3, 5, 4, stride=4)
    with torch.no_grad():
        trunk.weight.mul_(scale)
    return Backbone("tiny", trunk, preprocessing=Preprocessing(16))


def write_maps(path: Path, maps: np.ndarray, **options: object) -> np.ndarray:
    """A feature file as others write them."""
    with h5py.File(path, "w") as file:
        file.create_dataset("feature_map", data=maps, **options)
    return maps
