"""Attention laid over a picture, in the picture's own size."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor


def heatmap_overlay(picture: Image.Image, heat: Tensor) -> Image.Image:
    """Blend a picture with a heatmap: the more attention, the more of the heatmap's colour.

    Args:
        picture: RGB, H × W.
        heat: (H, W) in [0, 1], see `Prediction.heatmap`.
    """
    strength = heat.numpy()[..., None]
    colour = 255 * colormaps["inferno"](heat.numpy())[..., :3]
    opacity = 0.25 + 0.5 * strength
    mixed = (1 - opacity) * np.asarray(picture, dtype=np.float32) + opacity * colour
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
