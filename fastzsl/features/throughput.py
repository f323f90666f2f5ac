"""Images through a model as fast as the machine goes: whole small batches a core, or read ahead of a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from fastzsl.processors import usable

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

CPU_BATCH = 4
"""Images that pass the backbone together on one core. With 8 the largest maps are arrays that the system hands out
anew every time, zeroed page by page: EfficientNet-Lite0 76 images a second against 92, ResNet-101 14.7 and 15.8."""


def in_batches(
    items: Iterable[T],
    read: Callable[[T], tuple[R, Tensor | None]],
    work: Callable[[Tensor], S],
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[list[R], S | None]]:
    """Read images and work on them, batch after batch in order and in bounded memory, without gradients.

    On the CPU every core takes whole small batches, reading and work, on one thread: products of seven by seven
    maps are too small to be shared among threads, and nobody waits for anybody (about twice as fast as
    sharing). On a GPU threads read ahead and the device takes the batches.

    Args:
        items: what names the images; taken a few batches ahead.
        read: what is to be known of an item, and its pixels, or None where there is nothing to work on.
            Called in threads, as is `work` on the CPU; what they raise is raised here, in the item's turn.
        work: from the stacked pixels, on `device`, to whatever is wanted.
        batch_size: images worked on together; on the CPU at most `CPU_BATCH`.

    Yields:
        what `read` said of a batch's items, and the result of `work` for those with pixels, None if none has.
    """
    on_cpu, cores = device.type == "cpu", max(1, torch.get_num_threads())
    size = min(batch_size, CPU_BATCH) if on_cpu else batch_size
    waiting = iter(items)
    batches = iter(lambda: list(islice(waiting, size)), [])

    def take(batch: list[T]) -> tuple[list[R], Tensor | S | None]:
        known, pixels = [], []
        for item in batch:
            result, image = read(item)
            known.append(result)
            if image is not None:
                pixels.append(image)
        if not pixels:
            return known, None
        stacked = torch.stack(pixels)
        return known, _on_one_thread(work, stacked) if on_cpu else stacked

    running: deque[Future[tuple[list[R], Tensor | S | None]]] = deque()
    try:
        with ThreadPoolExecutor(cores if on_cpu else usable()) as pool:
            running.extend(pool.submit(take, batch) for batch in islice(batches, 2 * cores if on_cpu else 3))
            try:
                while running:
                    known, result = running.popleft().result()
                    running.extend(pool.submit(take, batch) for batch in islice(batches, 1))
                    if not on_cpu and isinstance(result, Tensor):
                        with torch.inference_mode():
                            result = work(result.to(device))
                    yield known, result  # type: ignore[misc]
            finally:
                for future in running:
                    future.cancel()
    finally:
        torch.set_num_threads(cores)


def _on_one_thread(work: Callable[[Tensor], S], pixels: Tensor) -> S:
    torch.set_num_threads(1)  # of this worker
    with torch.inference_mode():
        return work(pixels)
