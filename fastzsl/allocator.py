"""The C library's allocator: keep freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of malloc.h."""


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for the next request.

    Otherwise it returns the memory of a batch to the system, and in every step the system fills the same pages with
    zeros again. That takes from a sixth to a third of a training's time. A thread's memory is kept only if it is less
    than the padding, so this is as large as such a piece of memory can be. Other C libraries are left as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_TRIM_THRESHOLD, 1 << 30)
            mallopt(M_MMAP_THRESHOLD, 32 << 20)
            mallopt(M_TOP_PAD, 64 << 20)
