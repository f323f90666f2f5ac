"""Attention as an overlay on an image, in the image's own size."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import Tensor


def heatmap_overlay(image: Image.Image, heat: Tensor) -> Image.Image:
    """Blend an image with a heatmap: the more attention, the more of the heatmap's colour.

    Args:
        image: RGB, H × W.
        heat: (H, W) in [0, 1], see `Prediction.heatmap`.
    """
    strength = heat.numpy()[..., None]
    colour = 255 * colormaps["inferno"](heat.numpy())[..., :3]
    opacity = 0.25 + 0.5 * strength
    mixed = (1 - opacity) * np.asarray(image, dtype=np.float32) + opacity * colour
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def upsample(attention: Tensor, height: int, width: int) -> np.ndarray:
    """Attention (T,) of a square grid, bilinear to (height, width), scaled to a maximum of 1."""
    side = round(len(attention) ** 0.5)
    grid = attention.float().cpu().view(1, 1, side, side)
    fine = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)[0, 0]
    return (fine / fine.max().clamp_min(1e-12)).numpy()
