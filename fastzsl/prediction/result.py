"""What is found for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from fastzsl.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """The result for one image.

    Attributes:
        image: the file's path, or "image N" for one given in memory.
        classes: C candidates' names.
        scores: (C,) float32, equation 8's scores with gamma already added if it applies; empty if `error`.
        probabilities: (C,) float32 that sum to 1, calibrated on held-out seen classes; None for a run without.
        none_of_these: whether the best class is below the run's threshold, which was chosen on held-out seen classes;
            None for a run without.
        attention: (k, h, w) float32, the attention of the k best classes, best first; None unless asked for.
        attribute_attention: attribute -> (h, w) float32, where the model looked for it; empty unless asked for.
        error: why the image could not be read; None if it could.
    """

    image: str
    classes: tuple[str, ...]
    scores: Tensor
    attention: Tensor | None = None
    error: str | None = None
    probabilities: Tensor | None = None
    none_of_these: bool | None = None
    attribute_attention: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """Name of the class with the highest score."""
        return self.top(1)[0][0]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The `count` best classes and their scores, best first (all of them if there are fewer)."""
        if self.error is not None:
            raise UserError(self.error)
        values, places = self.scores.topk(min(count, len(self.scores)))
        return [(self.classes[i], value) for i, value in zip(places.tolist(), values.tolist())]

    def heatmap(self, rank: int, height: int, width: int) -> Tensor:
        """Attention of the class of this rank (0 is the best), bilinear to (height, width), maximum 1.

        Raises:
            ValueError: the prediction was made without attention for that rank.
        """
        if self.attention is None or not 0 <= rank < len(self.attention):
            kept = 0 if self.attention is None else len(self.attention)
            raise ValueError(f"rank is {rank} but attention was kept for {kept} classes; see attention_top")
        return _upsampled(self.attention[rank], height, width)

    def attribute_heatmap(self, attribute: str, height: int, width: int) -> Tensor:
        """Where the model looked for an attribute, bilinear to (height, width), maximum 1.

        Raises:
            ValueError: the prediction was made without this attribute; see `attributes` of `Recogniser.predict`.
        """
        if attribute not in self.attribute_attention:
            raise ValueError(f"no attention was kept for attribute {attribute}; see attributes of predict")
        return _upsampled(self.attribute_attention[attribute], height, width)


def _upsampled(attention: Tensor, height: int, width: int) -> Tensor:
    fine = F.interpolate(attention[None, None], (height, width), mode="bilinear")[0, 0]
    return fine / fine.max().clamp_min(1e-12)
