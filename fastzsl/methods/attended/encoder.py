"""The encoder h_e: class embeddings to queries in the visual space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SemanticEncoder(nn.Module):
    """H = h_e(K), equation 3's first line: one hidden sigmoid layer, then a linear one.

    Args:
        embedding_dim: m.
        feature_dim: d.
        hidden: size of the hidden layer.
        length: length given to every query; 0 changes nothing. A fixed length removes the effect of L_MA on the scale
            of the attention's logits, so that an experiment can measure its other effects.
    """

    def __init__(self, embedding_dim: int, feature_dim: int, hidden: int = 512, length: float = 0.0) -> None:
        super().__init__()
        self.length = length
        self.hidden = nn.Linear(embedding_dim, hidden)
        self.output = nn.Linear(hidden, feature_dim)

    def forward(self, class_embeddings: Tensor) -> Tensor:
        """(C, m) -> queries (C, d)."""
        queries = self.output(self.hidden(class_embeddings).sigmoid())
        return self.length * F.normalize(queries, dim=-1) if self.length else queries
