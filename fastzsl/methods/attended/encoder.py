"""The encoder h_e: class embeddings to queries in the visual space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.ops.linear import linear


class SemanticEncoder(nn.Module):
    """H = h_e(K), equation 3's first line: one hidden sigmoid layer, then a linear one.

    Args:
        embedding_dim: m.
        feature_dim: d.
        hidden: size of the hidden layer.
        length: length given to every query; 0 changes nothing. A fixed length removes the effect of L_MA on the scale
            of the attention's logits, so that an experiment can measure its other effects.
        backend: of the products, as of the ops.
    """

    def __init__(
        self,
        embedding_dim: int,
        feature_dim: int,
        hidden: int = 512,
        length: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.length, self.backend = length, backend
        self.hidden = nn.Linear(embedding_dim, hidden)
        self.output = nn.Linear(hidden, feature_dim)

    def forward(self, class_embeddings: Tensor) -> Tensor:
        """(C, m) -> queries (C, d)."""
        inner = linear(class_embeddings, self.hidden.weight, self.hidden.bias, self.backend).sigmoid()
        queries = linear(inner, self.output.weight, self.output.bias, self.backend)
        return self.length * F.normalize(queries, dim=-1) if self.length else queries
