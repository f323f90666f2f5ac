"""Files that are complete or absent, even after a crash or on a full disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Callable
from pathlib import Path

_numbers = itertools.count()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, and move it into place.

    At any time `path` is the old file or the complete new one, even after a crash or on a full disk. Two programs that
    write the same file have separate temporary files, so their data never mix; the file of the last one to finish
    remains.
    """
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{next(_numbers)}.partial")
    try:
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Rename a file whose content is already flushed to the disk, and flush the new name too."""
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write bytes that are already in memory, so that a full disk raises OSError and not a library's own error."""
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_text_atomically(path: Path, text: str) -> None:
    write_bytes_atomically(path, text.encode("utf-8"))


def _host() -> str:
    return socket.gethostname().partition(".")[0].replace("-", "_")


def _remove_leftovers(path: Path) -> None:
    """Temporary files left by killed processes of this machine."""
    start = f".{path.name}.{_host()}-"
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if not entry.name.startswith(start) or not entry.name.endswith(".partial"):
                continue
            process = entry.name.removeprefix(start).partition("-")[0]
            if process.isdigit() and not _alive(int(process)):
                Path(entry.path).unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
