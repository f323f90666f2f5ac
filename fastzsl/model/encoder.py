"""The encoder h_e: class embeddings to queries in the visual space."""

from __future__ import annotations

from torch import Tensor, nn


class SemanticEncoder(nn.Module):
    """H = h_e(K), equation 3's first line: one hidden sigmoid layer, then a linear one.

    Args:
        embedding_dim: m.
        feature_dim: d.
        hidden: size of the hidden layer.
    """

    def __init__(self, embedding_dim: int, feature_dim: int, hidden: int = 512) -> None:
        super().__init__()
        self.hidden = nn.Linear(embedding_dim, hidden)
        self.output = nn.Linear(hidden, feature_dim)

    def forward(self, class_embeddings: Tensor) -> Tensor:
        """(C, m) -> queries (C, d)."""
        return self.output(self.hidden(class_embeddings).sigmoid())
