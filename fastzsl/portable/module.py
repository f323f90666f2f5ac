"""A trained run as one module: images and class embeddings in, scores out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastzsl.errors import UserError
from fastzsl.methods.method import ClassSet
from fastzsl.methods.problem import pool
from fastzsl.prediction.recogniser import Recogniser


class ScoringModule(nn.Module):
    """Backbone and model of a run, in the eager formulas that every exporter can trace.

    Args:
        recogniser: the run.
        attention: also return the attention of every class.

    Raises:
        UserError: scores that cannot be exported, or attention that the method does not have.
    """

    def __init__(self, recogniser: Recogniser, attention: bool = False) -> None:
        super().__init__()
        model = recogniser.model
        if model.depends_on_class_set:
            raise UserError(
                "the run's method fits a classifier to each set of classes, which a file of fixed formulas cannot do; "
                "export a run of another method"
            )
        self.backbone, self.model = recogniser.backbone, model
        self.rounds, self.attention = recogniser.half, attention
        for part in model.modules():
            if hasattr(part, "backend"):
                part.backend = "eager"  # type: ignore[assignment]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.eval()
        if attention and not recogniser.has_attention:
            raise UserError("the run's method has no attention; leave --attention out")

    def forward(self, images: Tensor, class_embeddings: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores of equation 8, without gamma.

        Args:
            images: (B, 3, H, W) float32 in [0, 1], resized to the backbone's size.
            class_embeddings: (C, m) float32 in the units of classes.csv.

        Returns:
            scores (B, C), or (scores, attention (B, C, h, w)).
        """
        maps = self.backbone(images)
        if self.rounds:
            maps = maps.half().float()
        regions = maps.flatten(2).transpose(1, 2)
        features = pool(regions) if self.model.reads == "pooled" else regions
        new = torch.full_like(class_embeddings[:, 0], -1, dtype=torch.long)
        scores = self.model.classifier(ClassSet(class_embeddings, new))(features).float()
        if not self.attention:
            return scores
        attention = self.model.attention(features, class_embeddings)
        assert attention is not None
        return scores, attention.unflatten(2, maps.shape[2:])
