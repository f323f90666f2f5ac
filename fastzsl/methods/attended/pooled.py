"""Average pooling in place of the attention: the paper's model with one feature for all classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.attended.autoencoder import AttendedAutoencoder
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.method import ClassSet, Scorer
from fastzsl.methods.register import register
from fastzsl.ops.linear import linear


class PooledAutoencoder(AttendedAutoencoder):
    """`AttendedAutoencoder` in which every class gets the mean of the regions."""

    def score(self, regions: Tensor, queries: Tensor | None, embeddings: Tensor) -> Tensor:
        """Scores (B, C) from scaled regions (B, T, d) and embedded classes (C, m); queries are not used."""
        decoded = linear(regions.mean(1), self.mapping.weight, self.mapping.bias, self.encoder.backend)
        if self.similarity == "cosine":
            decoded, embeddings = F.normalize(decoded, dim=-1), F.normalize(embeddings, dim=-1)
        return decoded @ embeddings.mT

    def classifier(self, classes: ClassSet) -> Scorer:
        embeddings = self.embed(classes.descriptions)
        return lambda features: self.score(self.regions(features), None, embeddings)

    def attention(self, features: Tensor, descriptions: Tensor) -> None:
        return None


@register
@dataclass(frozen=True)
class Pooled(Attended):
    # The settings are those of the paper's model, and so is the text that explains them.
    __doc__ = (
        "Average pooling: the paper's model without its attention.\n\n"
        + str(Attended.__doc__).partition("\n\n")[2]
    )

    name: ClassVar[str] = "pooled"
    label: ClassVar[str] = "Average pooling"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        k: v for k, v in Attended.grid.items() if k != "attention_scale"
    }

    model: ClassVar[type[AttendedAutoencoder]] = PooledAutoencoder

    @property
    def has_idle_parameters(self) -> bool:
        return super().has_idle_parameters or not (self.alpha or self.eta)
