"""Errors of several processes: the process that knows the reason prints it once; the others print nothing.

The program that started the processes (torchrun, for example) ends them all when the first one fails. So a process
that only lost the connection to another one, or found the same error as process 0, waits before it prints anything.
If it is still running after that time, the error is its own and it prints it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

PATIENCE = 5.0
"""Seconds to wait. torchrun checks ten times a second, and a process needs about a second to end."""
_STARTER = os.getppid()


def first() -> bool:
    """Whether this is process 0, or the only one."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def alone() -> bool:
    """Whether this is the only process."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def let_others_speak(code: int) -> None:
    """Wait `PATIENCE` seconds in which this process may be ended; exit with `code` if its parent has ended."""
    if alone():
        return
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.getppid() != _STARTER:
            raise SystemExit(code)
        time.sleep(0.05)


def report(message: str) -> None:
    """Print a line on stderr, at once if this is process 0, and record it for torchrun's summary at the end."""
    if not first():
        let_others_speak(2)
    print(message, file=sys.stderr, flush=True)
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with contextlib.suppress(OSError), open(file, "w", encoding="utf-8") as summary:
            now = {"timestamp": str(int(time.time()))}
            json.dump({"message": {"message": message, "extraInfo": now}}, summary)
