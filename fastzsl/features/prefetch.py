"""The next batches are read while the current one is worked on."""

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
    """Call `read` on each item in a thread, `ahead` items before they are wanted; the order is kept.

    Memory holds `ahead` + 1 results. An error in `read` is raised where its item would have come.

    Yields:
        the item, what `read` made of it, and the seconds that it had to be waited for.
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
