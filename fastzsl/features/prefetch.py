"""Read the next batches while the current one is used."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2


def prefetch(items: Iterable[T], read: Callable[[T], R], ahead: int = AHEAD) -> Iterator[tuple[T, R, float]]:
    """Call `read` on each item in a thread, `ahead` items before they are needed; the order is kept.

    At most `ahead` + 1 results are in memory. An error in `read` is raised in its item's turn.

    Yields:
        the item, the result of `read`, and the seconds of waiting for it.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        running: deque[tuple[T, Future[R]]] = deque()
        try:
            running.extend((item, thread.submit(read, item)) for item in islice(waiting, ahead))
            while running:
                item, future = running.popleft()
                running.extend((item, thread.submit(read, item)) for item in islice(waiting, 1))
                start = time.perf_counter()
                result = future.result()
                yield item, result, time.perf_counter() - start
                del result
        finally:
            for _, future in running:
                future.cancel()
