"""How several devices share a batch."""

from __future__ import annotations

from typing import NamedTuple


class BatchPart(NamedTuple):
    """This device's images of a batch that is divided over several devices.

    Every device draws the dropout of the whole batch, so the result is the same as with one device.

    Attributes:
        rows: positions of this device's images in the whole batch.
        whole: number of images in the whole batch.
        weight: of this part in the mean over the devices: its number of images divided by the devices' mean number. A
            device without an image of the batch gets one with weight 0, because every device takes part in every step.
    """

    rows: slice
    whole: int
    weight: float = 1.0
