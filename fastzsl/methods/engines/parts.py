"""How several devices share a batch."""

from __future__ import annotations

from typing import NamedTuple


class BatchPart(NamedTuple):
    """Which images of a batch that several devices share are here.

    Dropout is drawn for the whole batch on every device, so that together they do what one device would.

    Attributes:
        rows: places of this device's images in the whole batch.
        whole: images in the whole batch.
        weight: of this part in the mean over the devices: its number of images over the devices' mean. A device
            for which a batch has no image gets one with weight 0, because every device takes part in every step.
    """

    rows: slice
    whole: int
    weight: float = 1.0
