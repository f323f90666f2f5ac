"""Extraction by several processes: each writes a file of its own images, and the first process joins the files.

The processes communicate only through these files, which get their names when they are complete. There is no process
group, and each process can be killed and continued separately. Machines must share the folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastzsl.features.backbones import Backbone
from fastzsl.features.extraction import Progress, extract_features, feature_identity
from fastzsl.features.opening import load_regions
from fastzsl.features.sources import ImageSource
from fastzsl.features.writer import FeatureWriter

BATCH = 256
POLL_SECONDS = 0.2


class EveryNth:
    """The images `rank`, `rank + world`, … of a source."""

    def __init__(self, images: ImageSource, rank: int, world: int) -> None:
        self._images, self._places = images, range(rank, len(images), world)

    def __len__(self) -> int:
        return len(self._places)

    def image(self, index: int) -> Image.Image:
        return self._images.image(self._places[index])

    def mask(self, index: int) -> np.ndarray | None:
        return self._images.mask(self._places[index])

    def describe(self, index: int) -> str:
        return self._images.describe(self._places[index])


def part_path(path: Path, rank: int, world: int) -> Path:
    """The file of one process's images, in the same folder as the joined file; removed after joining."""
    return path.with_name(f".{path.name}.part-{rank + 1}-of-{world}")


def extract_share(
    images: ImageSource,
    backbone: Backbone,
    path: Path,
    *,
    rank: int,
    world: int,
    fingerprint: str = "",
    weights: str | None = None,
    dtype: str = "float16",
    arrays: Mapping[str, np.ndarray] | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Progress = lambda images: None,
) -> None:
    """As `extract_features`, by `world` processes of which this is `rank`; process 0 returns after joining the files.

    The file is the same as that of a single process. `feature_map` has the same bytes if the backbone's result for an
    image does not depend on the other images of its batch.

    Raises:
        UserError: as `extract_features`.
    """
    world = min(world, len(images))
    if rank >= world:
        return
    if world == 1:
        extract_features(
            images, backbone, path, fingerprint=fingerprint, weights=weights, dtype=dtype, arrays=arrays,
            batch_size=batch_size, device=device, progress=progress,
        )  # fmt: skip
        return
    if not path.exists():
        extract_features(
            EveryNth(images, rank, world), backbone, part_path(path, rank, world),
            fingerprint=f"{fingerprint} {rank + 1}/{world}", weights=weights, dtype=dtype,
            batch_size=batch_size, device=device, progress=progress,
        )  # fmt: skip
    if rank == 0:
        _join(
            path,
            len(images),
            world,
            backbone,
            feature_identity(backbone, fingerprint, weights),
            dtype,
            arrays,
        )


def _join(
    path: Path,
    count: int,
    world: int,
    backbone: Backbone,
    identity: Mapping[str, str | int],
    dtype: str,
    arrays: Mapping[str, np.ndarray] | None,
) -> None:
    parts = [part_path(path, rank, world) for rank in range(world)]
    while not path.exists() and not all(part.exists() for part in parts):
        time.sleep(POLL_SECONDS)  # the launcher ends all processes when one fails
    sources = [load_regions(part) for part in parts] if not path.exists() else []
    d, h, w = sources[0].feature_shape if sources else (0, 0, 0)
    with FeatureWriter(path, (count, d, h, w), dtype, identity, arrays) as writer:  # type: ignore[arg-type]
        for rank, source in enumerate(sources):
            own = np.arange(rank, count, world)
            lacking = np.flatnonzero(np.isin(own, writer.missing))
            for places in np.array_split(lacking, max(1, -(-len(lacking) // BATCH))):
                maps = source.regions(torch.from_numpy(places)).transpose(1, 2).unflatten(2, (h, w))
                writer.write(own[places], maps.numpy())
        writer.finish()
    for part in path.parent.glob(
        f".{path.name}.part-*"
    ):  # also those of a run with another number of processes
        part.unlink(missing_ok=True)
