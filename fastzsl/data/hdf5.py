"""What an HDF5 file holds, read so that no file, however damaged, can crash or hang this process."""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastzsl.errors import UserError


@dataclass(frozen=True)
class Maps:
    """A data set of N equal rows and where they lie.

    Attributes:
        shape: (N, ...).
        dtype: numpy's type.
        offsets: (N,) int64, the byte at which each row starts in the file; None if rows are compressed,
            converted or share chunks, so that only the HDF5 library can read them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offsets: np.ndarray | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class Contents:
    """Arrays and texts by name, the layout of the maps, and the note of the program that made the file."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    maps: Maps | None
    made_by: str | None


def read_hdf5(path: Path, arrays: Sequence[str] = (), maps: str | None = None) -> Contents:
    """Read small data sets and the layout of a large one.

    Args:
        path: the file.
        arrays: names of data sets to read whole; those that the file lacks are left out.
        maps: name of the data set whose layout is wanted.

    Raises:
        UserError: no such file; not HDF5, cut short or damaged; with links to other files.
    """
    if not path.is_file():
        raise UserError(f"no file {path}")
    size = path.stat().st_size
    request = {
        "path": str(path.absolute()),
        "arrays": list(arrays),
        "maps": maps,
        "seconds": 3 + size // (20 << 20),
    }
    with np.load(io.BytesIO(_reader.ask(request)), allow_pickle=False) as answer:
        reply = json.loads(answer["reply"].tobytes())
        found = {name: answer[name] for name in answer.files if name not in ("reply", "maps offsets")}
        offsets = answer["maps offsets"] if "maps offsets" in answer.files else None
    if "error" in reply:
        raise UserError(f"{path}: {reply['error']}")
    layout = None
    if reply["maps"] is not None:
        layout = Maps(tuple(reply["maps"]["shape"]), np.dtype(reply["maps"]["dtype"]), offsets)
        _check_offsets(path, layout, size)
    return Contents(found, reply["texts"], layout, reply["made_by"])


def _check_offsets(path: Path, maps: Maps, size: int) -> None:
    if maps.offsets is None:
        return
    missing = np.flatnonzero(maps.offsets < 0)
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of {maps.shape[0]} pictures were never written, "
            f"first {missing[:3].tolist()}"
        )
    ordered = np.sort(maps.offsets)
    if len(ordered) and (
        int(ordered[-1]) + maps.row_bytes > size or bool((np.diff(ordered) < maps.row_bytes).any())
    ):
        raise UserError(f"{path}: damaged: pictures overlap or lie outside the file")


class _Reader:
    """The reading process: started when first needed, again after its death, and anew in a fork of ours."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, object]) -> bytes:
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                (length,) = struct.unpack("<q", process.stdout.read(8))
                reply = process.stdout.read(length)
            except (OSError, struct.error):
                self._process = None
                raise UserError(
                    f"{request['path']}: the process that reads HDF5 files ended with code {process.wait()}"
                ) from None
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            script = Path(__file__).with_name("hdf5_reader.py")
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._owner = os.getpid()
            atexit.register(self._process.stdin.close)  # type: ignore[union-attr]
        return self._process


_reader = _Reader()
