"""Files of feature maps: HDF5 with the names of the dense-attention papers, read one image at a time.

`feature_map` (N, d, h, w) is float16 or float32, with one uncompressed chunk for each image. So each image's numbers
are a plain range of bytes in the file. The HDF5 library is only asked for their places; they are then read directly,
in any order, as fast as memory is copied. `checksum` (N,), if present, is the CRC-32 of each image's bytes (0 if the
image was not written). It is compared when an image is read for the first time.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastzsl.errors import UserError
from fastzsl.files.hdf5 import Maps

IN_MEMORY_BYTES = 512 << 20
"""Feature files up to this size are read into memory."""


def fits_in_memory(size: int) -> bool:
    """Whether features of this many bytes are read into memory."""
    return size <= IN_MEMORY_BYTES


class FileRegions:
    """Region features read from a feature file when they are needed; the memory does not depend on the file's size.

    Args:
        path: the file.
        maps: layout of its `feature_map`.
        checksums: (N,) uint32, or None.
    """

    def __init__(self, path: Path, maps: Maps, checksums: np.ndarray | None = None) -> None:
        self.feature_shape = (maps.shape[1], maps.shape[2], maps.shape[3])
        self._path, self._maps = path, maps
        self._unchecked = np.ones(len(self), dtype=bool)
        self._checksums = checksums
        self._descriptor = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return self._maps.shape[0]

    def __reduce__(self) -> tuple[type[FileRegions], tuple[Path, Maps, np.ndarray | None]]:
        """A copy, or another process, opens the file again, because a shared descriptor would be closed twice."""
        return FileRegions, (self._path, self._maps, self._checksums)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def regions(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Features (B, T, d) in the stored dtype.

        Raises:
            UserError: an image's numbers are NaN or infinite, cut short, or not those that were written.
        """
        return self.feature_maps(np.asarray(indices, dtype=np.int64)).flatten(2).transpose(1, 2)

    def feature_maps(self, indices: np.ndarray) -> Tensor:
        """Feature maps (B, d, h, w), read in the order in which they lie in the file."""
        rows = np.empty((len(indices), *self._maps.shape[1:]), dtype=self._maps.dtype)
        assert self._maps.offsets is not None
        offsets = self._maps.offsets[indices]
        order = np.argsort(offsets, kind="stable")
        if hasattr(os, "posix_fadvise"):  # so that the disk can read the whole batch at once
            for start in offsets[order].tolist():
                os.posix_fadvise(self._descriptor, start, self._maps.row_bytes, os.POSIX_FADV_WILLNEED)
        for place in order.tolist():
            self._read_into(rows[place], int(offsets[place]), int(indices[place]))
        return torch.from_numpy(rows)

    def _read_into(self, row: np.ndarray, start: int, index: int) -> None:
        view = memoryview(row).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(view):
            got = os.preadv(self._descriptor, [view[done:]], start + done)
            if got == 0:
                raise UserError(f"{self._path}: image {index} is cut short")
            done += got
        if self._unchecked[index]:
            if self._checksums is not None and checksum(view) != self._checksums[index]:
                raise UserError(
                    f"{self._path}: the features of image {index} are not those that were written"
                )
            if not _finite(row):
                raise UserError(f"{self._path}: the features of image {index} have NaN or infinite entries")
            self._unchecked[index] = False


def _finite(row: np.ndarray) -> bool:
    """Whether no number is NaN or infinite (all bits of the exponent set). On float16 faster than `np.isfinite`."""
    exponent = np.uint16(0x7C00) if row.itemsize == 2 else np.uint32(0x7F800000)
    return not ((row.view(exponent.dtype) & exponent) == exponent).any()


def checksum(row: memoryview | bytes) -> int:
    """CRC-32 of an image's bytes; never 0, because 0 marks an image that was not written."""
    return zlib.crc32(row) or 1


def features_fingerprint(path: Path, maps: Maps | None, checksums: np.ndarray | None) -> str:
    """Changes whenever the file's features do: made from their checksums, or the file's size and modification time."""
    if maps is None or checksums is None:
        status = path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    layout = f"{maps.shape} {maps.dtype.str}\n".encode()
    return hashlib.sha256(layout + checksums.tobytes()).hexdigest()[:16]
