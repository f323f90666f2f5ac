"""A batch of images as a backbone takes it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn


def read_batch(image: Callable[[int], Image.Image], indices: Tensor, backbone: nn.Module) -> Tensor:
    """Images read and preprocessed by several threads, uint8 (B, 3, H, W).

    Args:
        image: index -> image in RGB.
        indices: (B,) which images.
        backbone: with `preprocess`, see `fastzsl.features.backbones.Backbone`.
    """
    preprocess: Any = backbone.preprocess
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as workers:
        return torch.stack(list(workers.map(lambda index: preprocess(image(index)), indices.tolist())))
