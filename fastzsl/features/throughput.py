"""Fast processing of images by a model: small batches on each core of the CPU, or images read ahead for a GPU."""

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
"""Images in a step of the backbone on one core. With 8 images the system allocates and clears the memory of the largest
maps again in every step, which is slower: 76 instead of 92 images/s with EfficientNet-Lite0, 14.7 instead of 15.8 with
ResNet-101."""


def in_batches(
    items: Iterable[T],
    read: Callable[[T], tuple[R, Tensor | None]],
    work: Callable[[Tensor], S],
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[list[R], S | None]]:
    """Read images and process them, batch by batch, in order, in limited memory and without gradients.

    On the CPU each core reads and processes whole small batches on one thread, a single batch in the caller's own. This
    is about twice as fast as dividing each batch among threads: products of seven by seven maps are too small for that,
    and no thread waits for another.
    On a GPU threads read ahead, and the device processes the batches.

    Args:
        items: identify the images; taken a few batches ahead.
        read: item -> (information on it, its pixels), with None for the pixels if there are none. It is called in
            threads, and on the CPU `work` is too; their exceptions are raised here, in the item's turn.
        work: stacked pixels on `device` -> result.
        batch_size: images in a call of `work`; on the CPU at most `CPU_BATCH`.

    Yields:
        the information on a batch's items, and the result of `work` for those with pixels, None if none has any.
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

    ahead = list(islice(batches, 2 * cores if on_cpu else 3))
    running: deque[Future[tuple[list[R], Tensor | S | None]]] = deque()
    try:
        if on_cpu and len(ahead) == 1:
            # No other thread: with one more, PyTorch has a second set of threads, and what the caller computes before
            # and after a single image takes five times as long.
            known, result = take(ahead[0])
            torch.set_num_threads(cores)
            yield known, result  # type: ignore[misc]
            return
        with ThreadPoolExecutor(cores if on_cpu else usable()) as pool:
            running.extend(pool.submit(take, batch) for batch in ahead)
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
    torch.set_num_threads(1)  # of this thread
    with torch.inference_mode():
        return work(pixels)
