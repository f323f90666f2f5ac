"""A trained model's scores on test pictures, and where its attention looks."""

from __future__ import annotations

from dataclasses import dataclass

import nvtx
import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.protocol.metrics import TestScores
from fastzsl.training.loop import read_pictures

BATCH = 64


@torch.no_grad()
def score_pictures(model: AttendedAutoencoder, data: ZeroShotDataset, indices: Tensor) -> Tensor:
    """Scores (N, C) float32 of pictures against every class of the data set."""
    model.eval()
    device = next(model.parameters()).device
    embeddings = data.class_embeddings.to(device)
    with nvtx.annotate("score"):
        return torch.cat(
            [model(read_inputs(model, data, batch).to(device), embeddings).float().cpu()
             for batch in indices.split(BATCH)]
        )  # fmt: skip


def test_scores(model: AttendedAutoencoder, data: ZeroShotDataset) -> TestScores:
    """Scores of both test splits against all classes."""
    return TestScores(
        seen_scores=score_pictures(model, data, data.test_seen),
        seen_labels=data.labels[data.test_seen],
        unseen_scores=score_pictures(model, data, data.test_unseen),
        unseen_labels=data.labels[data.test_unseen],
        seen=data.seen,
        unseen=data.unseen,
    )


test_scores.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def read_inputs(model: AttendedAutoencoder, data: ZeroShotDataset, indices: Tensor) -> Tensor:
    """What the model takes: pictures if it has its backbone, region features if not."""
    if model.backbone is not None:
        return read_pictures(data, indices, model.backbone)  # type: ignore[arg-type]
    return data.read_regions(indices)


@dataclass(frozen=True)
class Localisation:
    """How often the attention's maximum falls on the object.

    Attributes:
        hits: share of the pictures whose most attended region has its centre on the object's mask.
        chance: the same share for a region picked at random.
    """

    hits: float
    chance: float


@torch.no_grad()
def localisation(model: AttendedAutoencoder, data: ZeroShotDataset, indices: Tensor) -> Localisation | None:
    """Attention of the true class over `indices` against the objects' masks; None where masks are not known."""
    if data.images is None or model.pooling == "average":
        return None
    device = next(model.parameters()).device
    embeddings = data.class_embeddings.to(device)
    hits, chance = [], []
    for batch in indices.split(BATCH):
        _, attention = model.attend(read_inputs(model, data, batch).to(device), embeddings)
        side = round(attention.shape[2] ** 0.5)
        own = attention[torch.arange(len(batch)), data.labels[batch]]
        for index, weights in zip(batch.tolist(), own.cpu()):
            mask = data.images.mask(int(data.picture_ids[index]))
            if mask is None or side * side != attention.shape[2]:
                return None
            centres = torch.from_numpy(mask)[_centres(mask.shape[0], side)][:, _centres(mask.shape[1], side)]
            hits.append(float(centres.flatten()[int(weights.argmax())]))
            chance.append(float(centres.float().mean()))
    return Localisation(sum(hits) / len(hits), sum(chance) / len(chance))


def _centres(size: int, cells: int) -> Tensor:
    return ((torch.arange(cells) + 0.5) * size / cells).long()
