"""Read feature files of other programs that are compressed, or have many images in a chunk, once and in order.

Reading a single image of such a file decompresses a whole chunk, often hundreds of images, so shuffled batches would
decompress the file many times. It is therefore read once from beginning to end: into memory if it fits, otherwise into
the cache in the layout of `fastzsl.features.writer`, where later programs find it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from fastzsl.errors import UserError, first_line
from fastzsl.features.cache import cache_folder
from fastzsl.features.sources import MemoryRegions, RegionSource
from fastzsl.features.store import FileRegions, features_fingerprint, fits_in_memory
from fastzsl.features.writer import FeatureWriter
from fastzsl.files.hdf5 import Maps, read_hdf5

BLOCK_BYTES = 256 << 20
"""Bytes read at a time: several chunks of the size that the papers' scripts make."""

MOST_INFLATION = 1100
"""No filter of the HDF5 library compresses by more than a factor of about 1,030; a file that claims more is damaged."""


def repacked_regions(path: Path, maps: Maps) -> RegionSource:
    """The regions of a file that only the HDF5 library can read.

    Args:
        path: the file.
        maps: layout of its `feature_map`, of any floating type; other types than float16 become float32.

    Raises:
        UserError: the file cannot be decompressed, has NaN or infinite entries, or the cache's disk is too small.
    """
    dtype = np.dtype(np.float16 if maps.dtype == np.float16 else np.float32)
    count, d, h, w = maps.shape
    if count * maps.row_bytes > MOST_INFLATION * path.stat().st_size:
        raise UserError(f"{path}: too short for {maps.shape}; damaged")
    if fits_in_memory(count * d * h * w * dtype.itemsize):
        whole = np.empty(maps.shape, dtype)
        for start, block in _blocks(path, maps, dtype, f"reading {path.name}"):
            whole[start : start + len(block)] = block
        return MemoryRegions(torch.from_numpy(whole))
    mark = features_fingerprint(path, None, None)
    target = cache_folder() / f"repacked-{path.stem}-{mark}.h5"
    if not target.exists():
        identity = {"pictures": f"{path.name} {mark}", "backbone": "as in the file"}
        with FeatureWriter(target, (count, d, h, w), dtype.name, identity) as writer:
            if len(writer.missing):
                for start, block in _blocks(path, maps, dtype, f"{path.name} into the cache, once"):
                    writer.write(np.arange(start, start + len(block)), block)
            writer.finish()
    contents = read_hdf5(target, ["checksum"], maps="feature_map")
    if contents.maps is None or contents.maps.offsets is None or contents.maps.shape != maps.shape:
        raise UserError(f"{target} is damaged; remove it, and it is made again")
    return FileRegions(target, contents.maps, contents.arrays.get("checksum"))


def _blocks(path: Path, maps: Maps, dtype: np.dtype, words: str) -> Iterator[tuple[int, np.ndarray]]:
    """The maps in order, block by block, each chunk read once, with a progress bar on the terminal."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(words, total=maps.shape[0])
        try:
            with h5py.File(path, "r", locking=False) as file:
                data = file["feature_map"]
                chunk = data.chunks[0] if data.chunks else 1
                size = max(1, BLOCK_BYTES // maps.row_bytes // chunk) * chunk
                for start in range(0, maps.shape[0], size):
                    with np.errstate(over="ignore"):
                        block = data[start : start + size].astype(dtype, copy=False)
                    bad = ~np.isfinite(block.reshape(len(block), -1)).all(1)
                    if bad.any():
                        first = start + int(np.argmax(bad))
                        raise UserError(f"{path}: the features of image {first} have NaN or infinite entries")
                    yield start, block
                    bar.advance(task, len(block))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: damaged ({first_line(error)})") from None
