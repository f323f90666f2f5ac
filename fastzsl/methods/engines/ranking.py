"""Ranking losses minimised by gradient steps: the training of ALE, SJE and DeViSE.

The score of an image's own class should be higher than the others' by a margin. The three methods differ in the weights
of violated margins. All classes are scored for a batch of images, and the losses are exact; the papers draw wrong
classes at random.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.bilinear import BilinearModel, Similarity
from fastzsl.methods.engines.checkpoint import Checkpoint
from fastzsl.methods.engines.loop import epoch_order
from fastzsl.methods.engines.scaled import ScaledMethod, TrainingData
from fastzsl.methods.problem import Problem
from fastzsl.methods.settings import check_settings

RankingLoss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Margins (B, C_s), margin + F(x, c) - F(x, y) for c other than y and -inf for y -> the loss of each image (B,) and
its derivative by the margins (B, C_s), not negative."""


def ranking_gradient(
    scores: Tensor, labels: Tensor, margin: float, loss: RankingLoss
) -> tuple[Tensor, Tensor]:
    """The loss of each image (B,) and its derivative by the scores (B, C_s), whose rows sum to 0.

    Args:
        scores: F(x, c), (B, C_s).
        labels: (B,).
        margin: F(x, y) should be higher than the other scores by this.
    """
    own = labels[:, None]
    margins = (margin + scores - scores.gather(1, own)).scatter_(1, own, -torch.inf)
    values, slopes = loss(margins)
    return values, slopes.scatter_(1, own, -slopes.sum(1, keepdim=True))


@dataclass(frozen=True)
class RankingMethod(ScaledMethod):
    """Settings and training that ALE, SJE and DeViSE share; their own docstrings explain the settings.

    Scores of the training classes are X P with the prototypes P = W A', (d, C_s). A step changes W by X' D A, where D
    (N, C_s) has the derivatives of the batch's images and is zero elsewhere. So the training updates P by X' (D A A')
    and adds D to the coefficients B; W = W0 + X' B A is computed once, at the end.
    """

    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "feature_norm": ("unit", "standard"),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "lr": (3.0, 10.0, 30.0),
        "epochs": (10, 20, 50),
    }
    full_grid: ClassVar[bool] = True

    lr: float = 10.0
    epochs: int = 20
    batch_size: int = 64
    margin: float = 1.0
    init_scale: float = 0.0
    similarity: Similarity = "dot"

    def __post_init__(self) -> None:
        check_settings(self, positive=["lr", "epochs", "batch_size"], not_negative=["margin", "init_scale"])

    def loss(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """A `RankingLoss`."""
        raise NotImplementedError

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> BilinearModel:
        return BilinearModel(
            feature_dim, embedding_dim, self.feature_norm, self.embedding_normalisation, self.similarity
        )

    def fit(self, model: BilinearModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        data = model.fit_scales(problem, context)
        generator = torch.Generator().manual_seed(context.seed)
        start = torch.randn(model.weight.shape, generator=generator).to(model.weight)
        start *= self.init_scale * model.weight.shape[0] ** -0.5
        name = f"{self.name} {self._path()} {context.seed} on {context.device}"
        shorter: dict[int, _State] = problem.cached(name, dict) if context.checkpoint is None else {}
        coefficients = self.descend(data, start, context, shorter)
        model.weight = start + (data.features.mT @ coefficients) @ data.descriptions

    def descend(
        self, data: TrainingData, start: Tensor, context: Context, shorter: dict[int, _State]
    ) -> Tensor:
        """B (N, C_s) after `epochs` epochs of gradient descent on the mean loss of a batch at a constant rate.

        Args:
            data: training data.
            start: W0 (d, m).
            shorter: epochs -> state of trainings that differ only in the number of epochs; this one is added. So a
                search over epochs costs as much as its longest training.
        """
        kernel = data.descriptions @ data.descriptions.mT
        state = _State(start @ data.descriptions.mT, len(data.labels))
        checkpoint = Checkpoint(context, {"state": state})
        done = checkpoint.restore()
        known = max((epoch for epoch in shorter if epoch <= self.epochs), default=0)
        if known > done:
            done, state = known, copy.deepcopy(shorter[known])
        lr = self.lr / float(data.features.square().sum(1).mean().clamp_min(1e-30))
        for epoch in range(done, self.epochs):
            total = torch.zeros((), device=kernel.device)
            for batch in (
                epoch_order(len(data.labels), context.seed, epoch).to(kernel.device).split(self.batch_size)
            ):
                features = data.features[batch]
                values, slopes = ranking_gradient(
                    features @ state.prototypes, data.labels[batch], self.margin, self.loss
                )
                slopes *= -lr / len(batch)
                state.coefficients.index_add_(0, batch, slopes)
                state.prototypes.addmm_(features.mT, slopes @ kernel)
                total += values.sum()
            context.listener(epoch + 1, self.epochs, {"loss": float(total) / len(data.labels)})
            checkpoint.save(epoch + 1)
        shorter[self.epochs] = copy.deepcopy(state)
        return state.coefficients

    def _path(self) -> dict[str, Any]:
        """Everything that decides the steps, except their number."""
        return {k: v for k, v in self.settings().items() if k not in ("epochs", "similarity")}


class _State(nn.Module):
    """Prototypes P (d, C_s) and coefficients B (N, C_s), saved in a checkpoint."""

    prototypes: Tensor
    coefficients: Tensor

    def __init__(self, prototypes: Tensor, images: int) -> None:
        super().__init__()
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("coefficients", prototypes.new_zeros(images, prototypes.shape[1]))
