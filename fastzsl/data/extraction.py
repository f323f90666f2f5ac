"""Pictures through a frozen backbone into a file of feature maps, once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import h5py
import torch
from torch import Tensor

from fastzsl.backbones import Backbone
from fastzsl.data.sources import ImageSource
from fastzsl.errors import UserError


class Progress(Protocol):
    """Called with the number of pictures done since the last call."""

    def __call__(self, pictures: int) -> None: ...


@torch.inference_mode()
def extract_features(
    images: ImageSource,
    backbone: Backbone,
    path: Path,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Progress = lambda pictures: None,
) -> None:
    """Write `feature_map` (N, d, h, w) float16 of every picture to the HDF5 file `path`.

    Pictures are drawn or decoded by threads while the backbone works. The file appears under its name only when it
    is whole: a killed extraction leaves nothing that looks finished.

    Raises:
        UserError: a picture cannot be read (the file is named).
    """
    backbone = backbone.to(device)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with h5py.File(partial, "w") as file:
            maps: h5py.Dataset | None = None
            done = 0
            for batch in _batches(images, backbone, batch_size):
                features = backbone(batch.to(device)).to("cpu", torch.float16)
                if maps is None:
                    maps = file.create_dataset(
                        "feature_map", (len(images), *features.shape[1:]), "float16",
                        chunks=(1, *features.shape[1:]),
                    )  # fmt: skip
                maps[done : done + len(features)] = features.numpy()
                done += len(features)
                progress(len(features))
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _batches(images: ImageSource, backbone: Backbone, batch_size: int) -> Iterator[Tensor]:
    """uint8 batches (B, 3, H, W), prepared a few batches ahead by threads."""
    with ThreadPoolExecutor(max(1, torch.get_num_threads() // 2)) as pool:
        ahead = 3 * batch_size

        def prepare(index: int) -> Tensor:
            return backbone.preprocess(images.image(index))

        waiting = iter(range(len(images)))
        running = [pool.submit(prepare, i) for i in islice(waiting, ahead)]
        batch: list[Tensor] = []
        try:
            while running:
                batch.append(running.pop(0).result())
                running += [pool.submit(prepare, i) for i in islice(waiting, 1)]
                if len(batch) == batch_size or not running:
                    yield torch.stack(batch)
                    batch = []
        finally:
            for future in running:
                future.cancel()


def cache_folder() -> Path:
    """Where extracted features are kept: FASTZSL_CACHE, or fastzsl in the user's cache folder."""
    if own := os.environ.get("FASTZSL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastzsl"


def cache_path(fingerprint: str, backbone: Backbone, weights: str | None) -> Path:
    """The cached features of these pictures by this backbone."""
    if not fingerprint:
        raise UserError("a data set without a fingerprint cannot be cached")
    own = f"-{Path(weights).stem}" if weights else ""
    return cache_folder() / f"{fingerprint}-{backbone.name.replace('/', '_')}{own}-{backbone.image_size}.h5"
