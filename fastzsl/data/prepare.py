"""From settings to a data set that is ready to train on: found, checked, its features extracted once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from fastzsl.backbones import Backbone
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.extraction import Progress, cache_path, extract_features
from fastzsl.data.features import load_regions
from fastzsl.data.folder import image_folder
from fastzsl.data.shapes import shapes
from fastzsl.errors import UserError


class Sources(NamedTuple):
    """What names a data set.

    Attributes:
        dataset: "shapes" or "folder".
        root, distractors, data_seed, skip_bad_images: see `fastzsl.training.config.Config`.
    """

    dataset: str
    root: Path | None = None
    distractors: int = 2
    data_seed: int = 0
    skip_bad_images: bool = False


def find_dataset(sources: Sources) -> ZeroShotDataset:
    """The data set with its pictures, before any feature is extracted."""
    if sources.dataset == "shapes":
        return shapes(sources.data_seed, sources.distractors)
    if sources.root is None:
        raise UserError(f"--dataset {sources.dataset} needs --root DIR")
    return image_folder(sources.root, sources.data_seed, sources.skip_bad_images)


def with_features(
    data: ZeroShotDataset,
    backbone: Backbone,
    weights: str | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = lambda pictures: None,
) -> ZeroShotDataset:
    """The data set with region features, read from the cache or extracted into it."""
    if data.images is None:
        return data
    path = cache_path(data.fingerprint, backbone, weights)
    if not path.exists():
        extract_features(
            data.images, backbone, path, fingerprint=data.fingerprint, weights=weights, device=device,
            progress=progress,
        )  # fmt: skip
    return data.with_regions(load_regions(path, len(data.images)))
