"""A small problem in float64 that all processes draw alike."""

from __future__ import annotations

import torch

from fastzsl.methods.attended import SemanticEncoder

CLASSES, BATCH, REGIONS, FEATURES, EMBEDDING = 11, 6, 4, 7, 5
"""Classes that neither two nor three processes share evenly; a batch that both do."""


class Problem:
    """Regions, labels and embeddings, an encoder and a decoder, from a seed."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.regions = torch.randn(BATCH, REGIONS, FEATURES, dtype=torch.float64)
        self.labels = torch.randint(0, CLASSES, (BATCH,))
        self.embeddings = torch.randn(CLASSES, EMBEDDING, dtype=torch.float64)
        self.encoder = SemanticEncoder(EMBEDDING, FEATURES, hidden=8).double()
        self.decoder = torch.nn.Linear(FEATURES, EMBEDDING).double()
