"""A small zero-shot data set in memory, on which a training takes a fraction of a second."""

from __future__ import annotations

import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset, split_per_class
from fastzsl.features.sources import MemoryRegions
from fastzsl.protocol.trials import Source
from fastzsl.training.settings import Settings

CLASSES, UNSEEN, IMAGES, EMBEDDING, DIM, SIDE = 18, 4, 10, 3, 24, 3

SETTINGS = Settings().changed(
    hidden=32, epochs=20, batch_size=16, lr=1e-2, accelerator="cpu", backend="eager", attention_scale=3.0,
    region_dropout=0.0, feature_dropout=0.0, weight_decay=1e-4, gamma_folds=2,
)  # fmt: skip


class WatchedRegions(MemoryRegions):
    """Remembers every image that was read."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__(maps)
        self.read: set[int] = set()

    def regions(self, indices: object) -> Tensor:
        self.read |= set(torch.as_tensor(indices).tolist())
        return super().regions(indices)  # type: ignore[arg-type]


def small_problem(source: Source | None = None, spoil_tests: bool = False) -> ZeroShotDataset:
    """Every image shows its class's embedding, linearly mapped, in one region among noise.

    Args:
        source: its data_seed draws the problem.
        spoil_tests: NaN in every test image, and unseen classes' embeddings replaced.
    """
    generator = torch.Generator().manual_seed(source.data.data_seed if source else 0)
    embeddings = torch.randn(CLASSES, EMBEDDING, generator=generator)
    mixing = torch.randn(EMBEDDING, DIM, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    maps = torch.randn(len(labels), DIM, SIDE * SIDE, generator=generator)
    place = torch.randint(SIDE * SIDE, (len(labels),), generator=generator)
    maps[torch.arange(len(labels)), :, place] += 4 * embeddings[labels] @ mixing
    unseen = torch.arange(CLASSES - UNSEEN, CLASSES)
    seen = torch.arange(CLASSES - UNSEEN)
    indices = torch.arange(len(labels))
    of_seen = labels < CLASSES - UNSEEN
    trainval, test_seen = split_per_class(indices[of_seen], labels[of_seen], 0.25, generator)
    if spoil_tests:
        maps[test_seen] = torch.nan
        maps[~of_seen] = torch.nan
        embeddings[unseen] = 1e6 * torch.arange(1.0, UNSEEN + 1)[:, None]
    return ZeroShotDataset(
        name="small",
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        class_embeddings=embeddings,
        seen=seen,
        unseen=unseen,
        labels=labels,
        trainval=trainval,
        test_seen=test_seen,
        test_unseen=indices[~of_seen],
        regions=WatchedRegions(maps.view(len(labels), DIM, SIDE, SIDE)),
        fingerprint=f"small-{source.data.data_seed if source else 0}-{spoil_tests}",
    )


def spoilt_problem(source: Source) -> ZeroShotDataset:
    return small_problem(source, spoil_tests=True)
