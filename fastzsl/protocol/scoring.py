"""A trained model's scores on test images."""

from __future__ import annotations

import nvtx
import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.features.batch import read_batch
from fastzsl.methods.method import ClassSet, Model
from fastzsl.methods.problem import pool_views
from fastzsl.protocol.metrics import TestScores

BATCH, POOLED_BATCH = 64, 4096
_POOLED = "_pooled_splits"


def all_classes(data: ZeroShotDataset) -> ClassSet:
    """Every class of a data set, in its order."""
    training_ids = torch.full((data.num_classes,), -1)
    training_ids[data.seen] = torch.arange(len(data.seen))
    return ClassSet(data.class_embeddings, training_ids)


def unseen_classes(data: ZeroShotDataset) -> ClassSet:
    """The unseen classes alone."""
    return ClassSet(data.class_embeddings[data.unseen], torch.full((len(data.unseen),), -1))


@torch.no_grad()
def score_images(
    model: Model, data: ZeroShotDataset, indices: Tensor, classes: ClassSet | None = None
) -> Tensor:
    """Scores (N, C) float32 of images against `classes`, by default every class of the data set.

    Where the data set has several views of each image, the mean over the views.
    """
    if not len(indices):
        return torch.empty(0, len((classes or all_classes(data)).descriptions))
    model.eval()
    device, dtype = place_of(model)
    wanted = classes or all_classes(data)
    size = BATCH if model.reads == "regions" else POOLED_BATCH
    with nvtx.annotate("score"):
        scorer = model.classifier(
            ClassSet(wanted.descriptions.to(device, dtype), wanted.training_ids.to(device))
        )
        views = 1 + len(data.views) if model.reads == "regions" and model.backbone is None else 1

        def score(part: Tensor) -> Tensor:
            total = scorer(read_inputs(model, data, part).to(device)).float()
            for view in range(1, views):
                total = total + scorer(read_inputs(model, data, part, view).to(device)).float()
            return (total / views if views > 1 else total).cpu()

        return torch.cat([score(part) for part in indices.split(size)])


def test_scores(model: Model, data: ZeroShotDataset) -> TestScores:
    """Scores of both test splits against all classes."""
    scores = TestScores(
        seen_scores=score_images(model, data, data.test_seen),
        seen_labels=data.labels[data.test_seen],
        unseen_scores=score_images(model, data, data.test_unseen),
        unseen_labels=data.labels[data.test_unseen],
        seen=data.seen,
        unseen=data.unseen,
    )
    if not model.depends_on_class_set or not len(data.test_unseen):
        return scores
    alone = score_images(model, data, data.test_unseen, unseen_classes(data))
    return TestScores(**{**vars(scores), "conventional_scores": alone})


test_scores.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def read_inputs(model: Model, data: ZeroShotDataset, indices: Tensor, view: int = 0) -> Tensor:
    """The input of the model's scorer: regions or pooled features, or images if it has its own backbone.

    Args:
        indices: (B,) images of the data set.
        view: of the regions; pooled features are the mean over the views.
    """
    if model.backbone is not None:
        assert data.images is not None, "a trained backbone needs images"
        return read_batch(data.images.image, data.image_ids[indices], model.backbone)
    if model.reads == "regions":
        return data.read_regions(indices, view)
    return pooled_features(data, indices)


def place_of(model: Model) -> tuple[torch.device, torch.dtype]:
    """Device and floating type of a model."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def pooled_features(data: ZeroShotDataset, indices: Tensor) -> Tensor:
    """Pooled features (B, d) float32; kept, because the trainings of a search score the same images."""
    held: dict[str, Tensor] | None = getattr(data, _POOLED, None)
    if held is None:
        held = {"rows": torch.empty(0), "known": torch.zeros(len(data.labels), dtype=torch.bool)}
        object.__setattr__(data, _POOLED, held)  # the data set itself is frozen
    new = indices[~held["known"][indices]]
    if len(new):
        rows = pool_views(data, new)
        if not len(held["rows"]):
            held["rows"] = rows.new_zeros(len(data.labels), rows.shape[1])
        held["rows"][new] = rows
        held["known"][new] = True
    return held["rows"][indices]
