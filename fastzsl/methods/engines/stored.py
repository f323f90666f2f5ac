"""A batch of features as they are stored, on its way to the model."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Stored:
    """Stored features that no precision of Fabric converts.

    Fabric's mixed and half precisions convert every tensor that a module is given. That is a pass over all regions in
    float32, of which half may be dropped next. `prepare_regions` widens those that are kept, so the features are
    handed over in this object, which Fabric moves to the device and leaves as it is.

    Args:
        features: of any floating dtype.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def to(self, *args: Any, **kwargs: Any) -> Stored:
        """The same on another device, as `Tensor.to`."""
        return Stored(self.features.to(*args, **kwargs))
