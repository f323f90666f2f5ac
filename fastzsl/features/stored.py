"""A batch of region features as they are stored, on its way to the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastzsl.ops import prepare_regions


class Stored:
    """Stored features of a batch, which are read when the model prepares them.

    A batch of features that lie in memory is a list of rows: copying them first would be a pass over all regions, of
    which half may be dropped next. Fabric's mixed and half precisions convert every tensor that a module is given,
    which would be another pass. Fabric moves this object to the device and leaves it as it is.

    Args:
        features: (N, S, d), any strides and any floating dtype.
        images: (B,) int64 rows of `features` that are the batch; None for all.
    """

    def __init__(self, features: Tensor, images: Tensor | None = None) -> None:
        self._features, self._images = features, images

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, S, d)"""
        N, S, d = self._features.shape
        return N if self._images is None else len(self._images), S, d

    @property
    def device(self) -> torch.device:
        return self._features.device

    def copied(self) -> Tensor:
        """The features of the batch (B, S, d)."""
        return self._features if self._images is None else self._features[self._images]

    def prepare(self, **settings: Any) -> Tensor:
        """Regions (B, T, d) by `fastzsl.ops.prepare_regions`, with its settings."""
        return prepare_regions(self._features, images=self._images, **settings)

    def to(self, *args: Any, **kwargs: Any) -> Stored:
        """The same on another device, as `Tensor.to`. Only the batch's own rows are moved."""
        if self._images is None:
            return Stored(self._features.to(*args, **kwargs))
        if self._features[:0].to(*args, **kwargs).device == self.device:
            return self
        return Stored(self.copied().to(*args, **kwargs))
