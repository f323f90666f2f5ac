"""HDF5 files of feature maps, in the convention of the dense-attention papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from fastzsl.data.sources import MemoryRegions, RegionSource
from fastzsl.errors import UserError

IN_MEMORY_BYTES = 2 << 30
"""Feature files up to this size are read whole."""


class FileRegions:
    """Region features read from `feature_map` (N, d, h, w) of an HDF5 file, a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_features(path) as file:
            self._count, *shape = file["feature_map"].shape
        self.feature_shape = (shape[0], shape[1], shape[2])
        self._file: h5py.File | None = None

    def __len__(self) -> int:
        return self._count

    def regions(self, indices: Sequence[int] | Tensor) -> Tensor:
        if self._file is None:
            self._file = open_features(self._path)
        wanted = np.asarray(indices, dtype=np.int64)
        rows, place = np.unique(wanted, return_inverse=True)  # HDF5 reads increasing rows only
        maps = torch.from_numpy(self._file["feature_map"][rows])[torch.from_numpy(place)]
        return maps.flatten(2).transpose(1, 2)


def open_features(path: Path) -> h5py.File:
    """Open a file that holds `feature_map`.

    Raises:
        UserError: not an HDF5 file, cut short, or without a feature map of four dimensions.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not a whole HDF5 file ({str(error).splitlines()[0][:100]})") from None
    maps = file.get("feature_map", getclass=False) if "feature_map" in file else None
    if not isinstance(maps, h5py.Dataset) or maps.ndim != 4:
        found = "nothing" if maps is None else f"shape {getattr(maps, 'shape', '?')}"
        file.close()
        raise UserError(f"{path}: feature_map is {found}; wanted a data set (N, d, h, w)")
    return file


def load_regions(path: Path) -> RegionSource:
    """Open a feature file: in memory if it is small, read batch by batch if not."""
    with open_features(path) as file:
        maps = file["feature_map"]
        if maps.size * maps.dtype.itemsize <= IN_MEMORY_BYTES:
            return MemoryRegions(torch.from_numpy(maps[:]))
    return FileRegions(path)
