"""Random parts of a batch that a training step leaves out."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 1 << 16


def random_channels(images: int, channels: int, share: float, device: torch.device) -> Tensor:
    """Which channels of each image are kept, each with the probability `share` (in steps of 1/65536, at least one) and
    by itself.

    Random numbers of 64 bits are read as four of 16: `bernoulli_` draws one number of a floating type for each channel,
    which took a tenth of a small training step.

    Returns:
        (images, channels) bool.
    """
    draws = torch.empty(images, -(-channels // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    largest = max(1, round(share * STEPS)) - STEPS // 2 - 1  # of 16 bits, from -32768 on
    return draws.view(torch.int16)[:, :channels] <= largest


def random_regions(images: int, regions: int, kept: int, device: torch.device) -> Tensor:
    """`kept` different regions of each image, (images, kept) int64; every set of them is equally likely."""
    return torch.rand(images, regions, device=device).topk(kept, dim=1).indices
