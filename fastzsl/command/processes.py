"""One of several processes: when one fails, the one that knows why says so, once, and the others print nothing.

Whoever started the processes ends them all when the first one fails (torchrun does). A process that only loses its
partner, or that finds the same fault as process 0, therefore waits a while before it says anything. If nobody has
ended it by then, the fault is its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

PATIENCE = 5.0
"""Seconds; torchrun looks ten times a second, and a process that ends needs about one."""
_STARTER = os.getppid()


def first() -> bool:
    """Whether this is process 0, or the only one."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def alone() -> bool:
    """Whether there are no others."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def let_others_speak(code: int) -> None:
    """Return after `PATIENCE` seconds, unless ended before; exit with `code` if who started this is gone."""
    if alone():
        return
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.getppid() != _STARTER:
            raise SystemExit(code)
        time.sleep(0.05)


def report(message: str) -> None:
    """A line on stderr, now if this is process 0, and for the summary that torchrun prints at the end."""
    if not first():
        let_others_speak(2)
    print(message, file=sys.stderr, flush=True)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with contextlib.suppress(OSError), open(file, "w", encoding="utf-8") as summary:
            now = {"timestamp": str(int(time.time()))}
            json.dump({"message": {"message": message, "extraInfo": now}}, summary)
