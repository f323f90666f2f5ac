"""Compute the feature maps of images with a frozen backbone once, and write them to a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone
from fastzsl.features.cache import cache_folder
from fastzsl.features.engines import frozen
from fastzsl.features.opening import open_regions
from fastzsl.features.sources import ImageSource, RegionSource
from fastzsl.features.throughput import in_batches
from fastzsl.features.views import WHOLE, ViewedImages
from fastzsl.features.writer import FeatureWriter, check_made_by
from fastzsl.files.hdf5 import read_hdf5


class Progress(Protocol):
    """Called with the number of images done since the last call."""

    def __call__(self, images: int) -> None: ...


@torch.inference_mode()
def extract_features(
    images: ImageSource,
    backbone: Backbone,
    path: Path,
    *,
    fingerprint: str = "",
    weights: str | None = None,
    dtype: str = "float16",
    arrays: Mapping[str, np.ndarray] | None = None,
    view: str = WHOLE,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Progress = lambda images: None,
) -> None:
    """Write `feature_map` (N, d, h, w) of every image to an HDF5 file, continuing where an earlier run stopped.

    Threads draw or decode images while the backbone works. The file gets its name only when it is complete.

    Args:
        images: the images.
        backbone: computes the features, with its engine and in the type of its trunk.
        path: the file to make.
        fingerprint, weights: identify the images and the backbone's weights; an unfinished file is continued only
            if they are the same.
        dtype: of the stored features, "float16" or "float32".
        arrays: other data sets of the file, such as labels and splits.
        view: of each image, see `fastzsl.features.views`.
        batch_size: images in a step of the backbone.
        device: where the backbone works.
        progress: called after every batch, and at the start with the number of images that an earlier run did.

    Raises:
        UserError: an image cannot be read (the file is named), features are not finite, another file has the
            same path, or the engine cannot run the backbone.
    """
    maps_of = frozen(backbone.to(device))
    if view != WHOLE:
        images = ViewedImages(images, view)
    side = backbone.image_size

    def read(index: int) -> tuple[None, Tensor]:
        return None, backbone.preprocess(images.image(index))

    def work(pixels: Tensor) -> np.ndarray:
        return maps_of(pixels).float().cpu().numpy()

    probe = maps_of(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device))
    identity = feature_identity(backbone, fingerprint, weights, view)
    shape = (len(images), *map(int, probe.shape[1:]))
    with FeatureWriter(path, shape, dtype, identity, arrays) as writer:  # type: ignore[arg-type]
        if len(images) > len(writer.missing):
            progress(len(images) - len(writer.missing))
        done = 0
        missing = writer.missing.tolist()
        for _, features in in_batches(missing, read, work, batch_size, torch.device(device)):
            assert features is not None, "every image is read, or raises"
            writer.write(writer.missing[done : done + len(features)], features)
            done += len(features)
            progress(len(features))
        writer.finish()


def feature_identity(
    backbone: Backbone, fingerprint: str, weights: str | None, view: str = WHOLE
) -> dict[str, str | int]:
    """Everything that decides the features. An unfinished file is continued only if this is the same."""
    return {
        "pictures": fingerprint,
        "backbone": backbone.name,
        "weights": weights_name(weights),
        "image_size": backbone.image_size,
        "engine": backbone.engine,
        "precision": str(next(backbone.trunk.parameters()).dtype).removeprefix("torch."),
        **({} if view == WHOLE else {"view": view}),
    }


def weights_name(weights: str | None) -> str:
    """A name that changes whenever the backbone's weights do."""
    if weights is None or weights == "random":
        return weights or "published"
    if not Path(weights).is_file():
        raise UserError(f"--backbone-weights: no file {weights}")
    with open(weights, "rb") as file:
        return f"{Path(weights).stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def cache_path(fingerprint: str, backbone: Backbone, weights: str | None, view: str = WHOLE) -> Path:
    """The cached features of a view of these images by this backbone."""
    if not fingerprint:
        raise UserError("a data set without a fingerprint cannot be cached")
    identity = feature_identity(backbone, fingerprint, weights, view)
    own = f"-{identity['weights']}" if weights else ""
    kind = "" if identity["precision"] == "float32" else f"-{identity['precision']}"
    model = f"{backbone.name.replace('/', '_')}{own}-{backbone.image_size}-{backbone.engine}{kind}"
    model += "" if view == WHOLE else f"-{view}"
    return cache_folder() / f"{fingerprint}-{model}.h5"


def load_cached(path: Path, count: int, identity: Mapping[str, str | int]) -> RegionSource:
    """The regions of a file that `extract_features` made.

    Args:
        path: the file.
        count: how many images it must have.
        identity: the identity that its features must have, see `feature_identity`.

    Raises:
        UserError: the file is damaged, or has other features than its name says.
    """
    contents = read_hdf5(path, ["checksum"], maps="feature_map")
    check_made_by(path, contents.made_by, identity)
    return open_regions(path, contents.maps, contents.arrays.get("checksum"), count)
