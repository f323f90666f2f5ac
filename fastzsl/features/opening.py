"""Open a feature file of any supported layout as a source of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastzsl.errors import UserError
from fastzsl.features.repacked import repacked_regions
from fastzsl.features.sources import MemoryRegions, RegionSource
from fastzsl.features.store import FileRegions, fits_in_memory
from fastzsl.files.hdf5 import Maps, read_hdf5


def load_regions(path: Path, count: int | None = None) -> RegionSource:
    """Open a feature file. A small file is read into memory, a large one batch by batch. A file that is compressed, or
    has many images in a chunk, is first read once in order, see `fastzsl.features.repacked`.

    Args:
        count: the number of images that it must have, if known.

    Raises:
        UserError: not a whole file of feature maps, or one of another number of images.
    """
    contents = read_hdf5(path, ["checksum"], maps="feature_map")
    return open_regions(path, contents.maps, contents.arrays.get("checksum"), count)


def open_regions(
    path: Path, maps: Maps | None, checksums: np.ndarray | None, count: int | None = None
) -> RegionSource:
    """As `load_regions`, for a file whose layout is known."""
    if maps is None or len(maps.shape) != 4 or 0 in maps.shape or maps.dtype.kind != "f":
        found = "nothing" if maps is None else f"{maps.shape} of {maps.dtype}"
        raise UserError(f"{path}: feature_map is {found}; wanted floating numbers (N, d, h, w)")
    if count is not None and maps.shape[0] != count:
        raise UserError(
            f"{path}: features of {maps.shape[0]} images; wanted {count}: a file of another data set?"
        )
    if checksums is not None:
        if checksums.shape != maps.shape[:1] or checksums.dtype != np.uint32:
            raise UserError(
                f"{path}: checksum is {checksums.shape} of {checksums.dtype}; wanted ({maps.shape[0]},)"
            )
        missing = np.flatnonzero(checksums == 0)
        if len(missing):
            raise UserError(
                f"{path}: {len(missing)} of {maps.shape[0]} images are missing, "
                f"first {missing[:3].tolist()}; the extraction did not end"
            )
    if maps.offsets is None or maps.dtype.str not in ("<f2", "<f4"):
        return repacked_regions(path, maps)
    source = FileRegions(path, maps, checksums)
    if fits_in_memory(maps.shape[0] * maps.row_bytes):
        return MemoryRegions(source.feature_maps(np.arange(len(source))))
    return source
