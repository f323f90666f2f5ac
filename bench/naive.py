"""The paper's model without our algebra: attend, decode, compare in plain PyTorch; and both under torch.compile.

`FASTZSL_METHODS=bench/naive.py` makes these methods of the training command, for the whole job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.methods.attended.autoencoder import AttendedAutoencoder
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.register import register


class NaiveAutoencoder(AttendedAutoencoder):
    """X~ of every class is built, then decoded."""

    def score(self, regions: Tensor, queries: Tensor, embeddings: Tensor) -> Tensor:
        logits = self.dense_attention.scale * (queries @ regions.mT)
        decoded = self.mapping(logits.softmax(-1) @ regions)
        if self.similarity == "cosine":
            decoded, embeddings = F.normalize(decoded, dim=-1), F.normalize(embeddings, dim=-1)
        return (decoded * embeddings).sum(-1)


class CompiledAutoencoder(AttendedAutoencoder):
    """The loss under torch.compile; the optimiser and the backward pass run as they do without it."""

    def loss(self, *inputs: Any, **settings: Any) -> dict[str, Tensor]:
        if not hasattr(self, "_compiled"):
            object.__setattr__(self, "_compiled", torch.compile(super().loss))
        found: dict[str, Tensor] = self._compiled(*inputs, **settings)
        return found


class CompiledNaiveAutoencoder(CompiledAutoencoder, NaiveAutoencoder):
    """Both."""


@register
@dataclass(frozen=True)
class Naive(Attended):
    __doc__ = "Attend, then decode, in plain PyTorch.\n\n" + str(Attended.__doc__).partition("\n\n")[2]
    name: ClassVar[str] = "naive"
    label: ClassVar[str] = "Naive"
    model: ClassVar[type[AttendedAutoencoder]] = NaiveAutoencoder
    backend: Literal["auto", "eager", "native", "triton"] = "eager"


@register
@dataclass(frozen=True)
class CompiledEager(Attended):
    __doc__ = "Our algebra under torch.compile.\n\n" + str(Attended.__doc__).partition("\n\n")[2]
    name: ClassVar[str] = "compiled-eager"
    label: ClassVar[str] = "Eager, compiled"
    model: ClassVar[type[AttendedAutoencoder]] = CompiledAutoencoder
    backend: Literal["auto", "eager", "native", "triton"] = "eager"


@register
@dataclass(frozen=True)
class CompiledNaive(Attended):
    __doc__ = "The naive model under torch.compile.\n\n" + str(Attended.__doc__).partition("\n\n")[2]
    name: ClassVar[str] = "compiled-naive"
    label: ClassVar[str] = "Naive, compiled"
    model: ClassVar[type[AttendedAutoencoder]] = CompiledNaiveAutoencoder
    backend: Literal["auto", "eager", "native", "triton"] = "eager"
