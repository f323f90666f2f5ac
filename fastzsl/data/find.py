"""Find and check the data set of the settings, and extract its features once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.formats.embeddings import read_embeddings
from fastzsl.data.formats.folder import image_folder
from fastzsl.data.formats.hdf5 import hdf5_dataset
from fastzsl.data.formats.shapes import shapes
from fastzsl.data.formats.xlsa17 import KNOWN, xlsa17
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone
from fastzsl.features.engines import Engine, choose_engine
from fastzsl.features.extraction import Progress, cache_path, extract_features, feature_identity, load_cached
from fastzsl.features.sources import ImageSource, RegionSource
from fastzsl.features.views import VIEWS, Views


class Sources(NamedTuple):
    """The settings that select a data set.

    Attributes:
        dataset: "shapes", "folder", "hdf5" or one of `fastzsl.data.formats.xlsa17.KNOWN`.
        root, distractors, data_seed, skip_bad_images, images, features, class_embeddings: see
            `fastzsl.training.settings.DataSettings`.
    """

    dataset: str
    root: Path | None = None
    distractors: int = 2
    data_seed: int = 0
    skip_bad_images: bool = False
    images: Path | None = None
    features: Path | None = None
    class_embeddings: str = "att"


def find_dataset(sources: Sources) -> ZeroShotDataset:
    """The data set with its images, before any feature is extracted.

    Raises:
        UserError: anything wrong with its files, or an option that does not apply to this data set.
    """
    own = sources.class_embeddings not in ("att", "original_att")
    data = _find(sources, "att" if own else sources.class_embeddings)
    if not own:
        return data
    path = Path(sources.class_embeddings)
    if not path.suffix and not path.exists():
        raise UserError(
            f"--class-embeddings {path}: no such file; wanted att, original_att, or a .csv, .npz or .mat file"
        )
    embeddings, names = read_embeddings(path, data.class_names)
    return replace(data, class_embeddings=embeddings, attribute_names=names)


def _find(sources: Sources, kind: str) -> ZeroShotDataset:
    dataset, root = sources.dataset, sources.root
    takes = {"images": dataset in KNOWN, "features": dataset in KNOWN or dataset == "hdf5"}
    for option, taken in takes.items():
        if getattr(sources, option) is not None and not taken:
            raise UserError(f"--{option} is not for --dataset {dataset}")
    if dataset not in (*KNOWN, "hdf5") and kind != "att":
        raise UserError(
            f"--class-embeddings {kind} is not for --dataset {dataset}; give a .csv, .npz or .mat file"
        )
    if dataset == "shapes":
        return shapes(sources.data_seed, sources.distractors)
    if dataset == "hdf5":
        if sources.features is None:
            raise UserError("--dataset hdf5 needs --features FILE")
        return hdf5_dataset(sources.features, kind)
    if root is None:
        raise UserError(f"--dataset {dataset} needs --root DIR")
    if dataset in KNOWN:
        return xlsa17(dataset, root, images=sources.images, features=sources.features, class_embeddings=kind)
    return image_folder(root, sources.data_seed, sources.skip_bad_images)


def with_features(
    data: ZeroShotDataset,
    backbone: Backbone,
    weights: str | None = None,
    *,
    engine: Engine = "auto",
    views: Views = "one",
    device: torch.device | str = "cpu",
    progress: Progress = lambda images: None,
) -> ZeroShotDataset:
    """The data set with region features, read from the cache or extracted into it.

    Args:
        progress: hears of each image of each view.

    Raises:
        UserError: several views of a data set that comes with features, or a fault of the extraction.
    """
    if data.images is None or data.regions is not None:
        if views != "one":
            raise UserError(f"--views {views} needs images; data set {data.name} comes with features")
        return data
    return data.with_regions(
        *read_or_extract(data.images, data.fingerprint, backbone, weights, engine, views, device, progress)
    )


def read_or_extract(
    images: ImageSource,
    fingerprint: str,
    backbone: Backbone,
    weights: str | None,
    engine: Engine,
    views: Views,
    device: torch.device | str,
    progress: Progress,
) -> list[RegionSource]:
    """Region features of images, a source for each view, read from the cache or extracted into it.

    Args:
        fingerprint: of the images. The other arguments are those of `with_features`.

    Raises:
        UserError: a fault of the extraction.
    """
    backbone.engine = choose_engine(engine, device, next(backbone.trunk.parameters()).dtype)
    sources = []
    for view in VIEWS[views]:
        path = cache_path(fingerprint, backbone, weights, view)
        if path.exists():
            progress(len(images))
        else:
            extract_features(
                images, backbone, path, fingerprint=fingerprint, weights=weights, device=device,
                progress=progress, view=view,
            )  # fmt: skip
        identity = feature_identity(backbone, fingerprint, weights, view)
        sources.append(load_cached(path, len(images), identity))
    return sources
