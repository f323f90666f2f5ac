"""Write a feature file image by image. It survives a kill at any time, and gets its name only when it is complete.

The file is first made at its full size under a hidden name, with all chunks allocated. After that the HDF5 library
is not used any more: an image's numbers are written directly to their place, then their checksum. So the file's
structure stays valid however the writer is stopped, even by a power cut. An image counts as written only if its
numbers agree with its checksum. The file gets its name when no image is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from fastzsl.errors import UserError, first_line
from fastzsl.features.store import checksum
from fastzsl.files.atomic import move_into_place
from fastzsl.files.hdf5 import Maps, read_hdf5

FORMAT = 1
OTHER_VERSION = "another version of this program made it"


def partial_path(path: Path) -> Path:
    """The path of the unfinished file."""
    return path.with_name(f".{path.name}.partial")


class FeatureWriter:
    """Writes `feature_map` (N, d, h, w) to `path`, or continues where an earlier writer of it stopped.

    A second writer of the same file waits until the first is done and then has nothing to write. Use it in a `with`
    block.

    Args:
        path: the file to make.
        shape: (N, d, h, w).
        dtype: float16 or float32.
        identity: of the features; an unfinished file with another identity is not continued.
        arrays: other data sets of the file.

    Attributes:
        missing: int64 indices of the images still to be written, as found at the start.

    Raises:
        UserError: there is an unfinished file of other features, or the disk is too small.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        dtype: str,
        identity: Mapping[str, str | int],
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.path, self._partial = path, partial_path(path)
        self._shape, self._dtype = shape, np.dtype(dtype)
        mark = {"format": FORMAT, **identity, "dtype": self._dtype.name, "arrays": _digest(arrays or {})}
        self._identity = json.dumps(mark, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = self._lock(arrays or {})
        self.missing = np.empty(0, dtype=np.int64)
        if self._descriptor is not None:
            try:
                self._maps, self._checksums_at = self._places()
                self.missing = self._find_missing()
            except BaseException:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def write(self, indices: np.ndarray, features: np.ndarray) -> None:
        """Store the maps (B, d, h, w) of the images `indices`.

        Raises:
            UserError: a feature is NaN, infinite, or too large for the file's type.
        """
        assert self._descriptor is not None
        assert self._maps.offsets is not None
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(features, dtype=self._dtype)
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(1)
        if not finite.all():
            hint = "; --dtype float32 has room for larger numbers" if self._dtype == np.float16 else ""
            raise UserError(
                f"the features of image {indices[~finite][0]} are not finite in {self._dtype}{hint}"
            )
        for index, row in zip(indices.tolist(), rows):
            view = memoryview(row).cast("B")
            _write_all(self._descriptor, view, int(self._maps.offsets[index]))
            mark = np.array([checksum(view)], dtype="<u4").tobytes()
            _write_all(self._descriptor, memoryview(mark), self._checksums_at + 4 * index)

    def finish(self) -> None:
        """Flush everything to the disk and give the file its name."""
        if self._descriptor is None:
            return
        missing = np.flatnonzero(self._checksums() == 0)
        if len(missing):
            raise RuntimeError(f"{len(missing)} images were not written, first {missing[:3].tolist()}")
        os.fsync(self._descriptor)
        move_into_place(self._partial, self.path)

    def _lock(self, arrays: Mapping[str, np.ndarray]) -> int | None:
        """The unfinished file, made if there is none and locked by this writer; None if another writer finished it."""
        while not self.path.exists():
            if not self._partial.exists():
                self._create(arrays)
            descriptor = os.open(self._partial, os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._partial.exists() and os.path.samestat(os.fstat(descriptor), self._partial.stat()):
                return descriptor
            os.close(descriptor)
        if (found := read_hdf5(self.path).made_by) != self._identity:
            raise UserError(
                f"{self.path} is there already and holds other features: "
                f"{_difference(found, self._identity) or OTHER_VERSION}; choose another name or remove it"
            )
        return None

    def _create(self, arrays: Mapping[str, np.ndarray]) -> None:
        needed = math.prod(self._shape) * self._dtype.itemsize
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise UserError(
                f"{self.path}: the features need {needed / 2**30:.1f} GiB; "
                f"{free / 2**30:.1f} GiB are free on that disk"
            )
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_ident()}.new")
        try:
            with h5py.File(new, "w") as file:
                file.attrs["fastzsl"] = self._identity
                for name, values in arrays.items():
                    file.create_dataset(name, data=values)
                _reserve(file, "feature_map", self._shape, self._dtype.newbyteorder("<"), by_image=True)
                _reserve(file, "checksum", self._shape[:1], np.dtype("<u4"), by_image=False)
            os.link(new, self._partial)  # unlike a rename, it never replaces another writer's file
        except FileExistsError:
            pass
        except RuntimeError as error:  # raised by the HDF5 library if a write fails
            raise UserError(f"{new} cannot be written ({first_line(error)}); is the disk full?") from None
        finally:
            new.unlink(missing_ok=True)

    def _places(self) -> tuple[Maps, int]:
        contents = read_hdf5(self._partial, maps="feature_map")
        if contents.made_by != self._identity:
            raise UserError(
                f"{self._partial} holds unfinished features of others: "
                f"{_difference(contents.made_by, self._identity) or OTHER_VERSION}; remove it to start again"
            )
        marks = read_hdf5(self._partial, maps="checksum").maps
        maps = contents.maps
        if (
            maps is None
            or maps.offsets is None
            or maps.shape != self._shape
            or marks is None
            or marks.offsets is None
        ):
            raise UserError(f"{self._partial} is damaged; remove it to start again")
        return maps, int(marks.offsets[0])

    def _checksums(self) -> np.ndarray:
        assert self._descriptor is not None
        return np.frombuffer(os.pread(self._descriptor, 4 * self._shape[0], self._checksums_at), dtype="<u4")

    def _find_missing(self) -> np.ndarray:
        """Images without a checksum, or whose numbers do not agree with it."""
        assert self._descriptor is not None
        assert self._maps.offsets is not None
        claimed = self._checksums()
        missing = [
            index
            for index, (mark, start) in enumerate(zip(claimed.tolist(), self._maps.offsets.tolist()))
            if mark == 0 or checksum(os.pread(self._descriptor, self._maps.row_bytes, start)) != mark
        ]
        return np.array(missing, dtype=np.int64)


def check_made_by(path: Path, made_by: str | None, identity: Mapping[str, str | int]) -> None:
    """Raise `UserError` naming the first difference between a finished file's identity and `identity`."""
    difference = _difference(made_by, json.dumps(dict(identity)), tuple(identity))
    if difference:
        raise UserError(f"{path} holds other features: {difference}; remove it to extract them again")


KEYS = ("backbone", "weights", "image_size", "engine", "view", "precision", "dtype", "pictures", "arrays")


def _difference(found: str | None, wanted: str, keys: tuple[str, ...] = KEYS) -> str:
    """The first of `keys`, in words, in which a file differs from the wanted identity; empty if none does."""
    try:
        held = json.loads(found or "")
        assert isinstance(held, dict)
    except (ValueError, AssertionError, RecursionError):
        return "it was not made by this program"
    own = json.loads(wanted)
    words = {"pictures": "the images differ", "arrays": "labels, splits or class embeddings differ"}
    for name in keys:
        if held.get(name) != own.get(name):
            return words.get(name, f"{name} is {held.get(name)}, not {own.get(name)}")
    return ""


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, *, by_image: bool) -> None:
    """A data set whose space in the file is allocated now; with h5py's own calls it would be allocated row by row."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    if by_image:
        plan.set_chunk((1, *shape[1:]))
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # a hole in the file until an image is written
    kind = h5py.h5t.py_create(dtype, logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plan)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest that changes whenever an array does."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.shape} {values.dtype} ".encode())
        texts = values.dtype == object
        digest.update(b"\0".join(map(_as_bytes, values)) if texts else values.tobytes())
    return digest.hexdigest()[:12]


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _write_all(descriptor: int, view: memoryview, start: int) -> None:
    """Write at `start`; a full disk raises `OSError` and leaves the image's checksum unwritten."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], start + done)
