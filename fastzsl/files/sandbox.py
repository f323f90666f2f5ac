"""Read binary files of other programs in a separate process, so that a damaged file cannot crash or hang this one."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastzsl.errors import UserError


def read_sandboxed(
    kind: Literal["hdf5", "mat"], path: Path, arrays: Sequence[str], maps: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The reply of `sandboxed_reader` (texts, maps and made_by), and the arrays by name.

    Raises:
        UserError: the file is damaged, or the reader crashed on it.
    """
    request = {
        "kind": kind,
        "path": str(path.absolute()),
        "arrays": list(arrays),
        "maps": maps,
        "seconds": 3 + path.stat().st_size // (20 << 20),
    }
    with np.load(io.BytesIO(_reader.ask(request)), allow_pickle=False) as answer:
        reply = json.loads(answer["reply"].tobytes())
        found = {name: answer[name] for name in answer.files if name != "reply"}
    if "error" in reply:
        raise UserError(f"{path}: {reply['error']}")
    return reply, found


class _Reader:
    """The reading process. It is started when first needed, and again after it died or after this process forked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._inherited: list[subprocess.Popen[bytes]] = []
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
                _end(process)
                raise UserError(
                    f"{request['path']}: the process that reads binary files ended with code "
                    f"{process.returncode}; is there enough memory?"
                ) from None
            except BaseException:
                # No memory, or Ctrl-C: the rest of this reply is not the next one's beginning.
                self._process = None
                _end(process)
                raise
        return reply

    def after_fork(self) -> None:
        """A fork does not have the thread that may hold the lock."""
        self._lock = threading.Lock()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            if self._process is not None:
                if self._owner != os.getpid():
                    self._inherited.append(self._process)  # it belongs to the parent process
                else:
                    _end(self._process)
            script = Path(__file__).with_name("sandboxed_reader.py")
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what goes wrong is in the reply
            )
            self._owner = os.getpid()
            atexit.register(_end, self._process, os.getpid())
        return self._process


def _end(process: subprocess.Popen[bytes], owner: int | None = None) -> None:
    """Close a process's input, which makes it end, and wait for it; in a fork of `owner` do nothing."""
    if owner not in (None, os.getpid()):
        return
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_reader = _Reader()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: _reader.after_fork())
