"""A planted problem that every method must solve: class means are a rectified linear map of the descriptions."""

from __future__ import annotations

import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset, split_per_class
from fastzsl.features.sources import MemoryRegions
from fastzsl.methods.method import ClassSet


def planted(
    seed: int = 0,
    *,
    classes: int = 40,
    unseen: int = 10,
    images: int = 20,
    embedding_dim: int = 16,
    feature_dim: int = 48,
    side: int = 2,
    noise: float = 0.15,
    same_space: bool = False,
    spoil_tests: bool = False,
) -> ZeroShotDataset:
    """A_c unit rows, mu_c = ReLU(A_c P), regions = mu_y + noise, non-negative as a rectified conv map is.

    Args:
        same_space: mu_c = A_c instead, and regions may be negative; `feature_dim` is then `embedding_dim`.
        spoil_tests: NaN in every test image, and other descriptions of the unseen classes.
    """
    generator = torch.Generator().manual_seed(seed)
    descriptions = torch.nn.functional.normalize(
        torch.randn(classes, embedding_dim, generator=generator), dim=1
    )
    mapping = torch.randn(embedding_dim, feature_dim, generator=generator)
    means = descriptions if same_space else (descriptions @ mapping).relu()
    labels = torch.arange(classes).repeat_interleave(images)
    draws = torch.randn(len(labels), means.shape[1], side, side, generator=generator)
    maps = means[labels][:, :, None, None] + noise * draws
    maps = maps if same_space else maps.relu()
    indices = torch.arange(len(labels))
    of_seen = labels < classes - unseen
    trainval, test_seen = split_per_class(indices[of_seen], labels[of_seen], 0.25, generator)
    if spoil_tests:
        maps[test_seen] = torch.nan
        maps[~of_seen] = torch.nan
        descriptions[classes - unseen :] = torch.randn(unseen, embedding_dim, generator=generator)
    return ZeroShotDataset(
        name="planted",
        class_names=tuple(f"class {i}" for i in range(classes)),
        class_embeddings=descriptions,
        seen=torch.arange(classes - unseen),
        unseen=torch.arange(classes - unseen, classes),
        labels=labels,
        trainval=trainval,
        test_seen=test_seen,
        test_unseen=indices[~of_seen],
        regions=MemoryRegions(maps),
        fingerprint=f"planted-{seed}",
    )


def unseen_classes(data: ZeroShotDataset) -> ClassSet:
    """The unseen classes alone, as T1 asks for them."""
    return ClassSet(data.class_embeddings[data.unseen], torch.full((len(data.unseen),), -1))


def all_classes(data: ZeroShotDataset) -> ClassSet:
    """All classes in the order of the data set."""
    ids = torch.full((data.num_classes,), -1)
    ids[data.seen] = torch.arange(len(data.seen))
    return ClassSet(data.class_embeddings, ids)


def features(data: ZeroShotDataset, indices: Tensor, reads: str) -> Tensor:
    """What a scorer takes, for images of the data set."""
    regions = data.read_regions(indices)
    return regions if reads == "regions" else regions.float().mean(1)
