"""The op in a model that you have: the attention written with einsum, and the same in one call.

python examples/op_in_a_model.py
"""

import torch
from torch import nn

from fastzsl.ops import attended_scores


class Before(nn.Module):
    """Each class attends to the regions of an image; a linear layer compares what it found with its description."""

    def __init__(self, feature_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(embedding_dim, feature_dim)
        self.decoder = nn.Linear(feature_dim, embedding_dim)

    def forward(self, regions: torch.Tensor, class_embeddings: torch.Tensor) -> torch.Tensor:
        queries = self.query(class_embeddings)
        attention = torch.einsum("btd,cd->bct", regions, queries).softmax(-1)
        attended = torch.einsum(
            "bct,btd->bcd", attention, regions
        )  # (B, C, d), the largest tensor of the model
        return torch.einsum("bcm,cm->bc", self.decoder(attended), class_embeddings)


class After(Before):
    """The same weights and the same scores; the attended features are never built."""

    def forward(self, regions: torch.Tensor, class_embeddings: torch.Tensor) -> torch.Tensor:
        return attended_scores(
            regions, self.query(class_embeddings), self.decoder.weight, self.decoder.bias, class_embeddings,
            similarity="dot",
        )  # fmt: skip


torch.manual_seed(0)
before, after = Before(128, 16), After(128, 16)
after.load_state_dict(before.state_dict())
regions, class_embeddings = torch.randn(8, 49, 128), torch.randn(50, 16)
scores = [model(regions, class_embeddings) for model in (before, after)]
for found in scores:
    found.square().mean().backward()
gradients = [torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (before, after)]
for what, (old, new) in {"scores": scores, "gradients": gradients}.items():
    difference = ((old - new).norm() / old.norm()).item()
    print(f"{what} differ by {difference:.1e} of their norm")
    assert difference < 1e-5
