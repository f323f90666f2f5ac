"""The loop that extraction and prediction share keeps order, memory and the thread count, on either kind of device.

PyTorch's meta device, which computes shapes only, stands in for a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastzsl.features.throughput import CPU_BATCH, in_batches

DEVICES = pytest.mark.parametrize("device", ["cpu", "meta"])


def _read(item: int) -> tuple[str, Tensor | None]:
    """Every third item has no pixels."""
    return f"item {item}", None if item % 3 == 0 else torch.full((1, 2, 2), item)


@DEVICES
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_items_come_in_order_with_the_results_of_those_that_have_pixels(device: str, batch_size: int) -> None:
    names, results = [], []
    for known, result in in_batches(range(31), _read, lambda x: x, batch_size, torch.device(device)):
        assert len(known) <= (min(batch_size, CPU_BATCH) if device == "cpu" else batch_size)
        wanted = [int(name.split()[1]) for name in known if int(name.split()[1]) % 3]
        assert (result is None) == (not wanted)
        if result is not None:
            assert result.device.type == device
            assert result.shape == (len(wanted), 1, 2, 2)
            if device == "cpu":
                results += result[:, 0, 0, 0].tolist()
        names += known
    assert names == [f"item {i}" for i in range(31)]
    assert device == "meta" or results == [i for i in range(31) if i % 3]


@DEVICES
def test_a_fault_is_raised_in_its_items_turn_and_no_thread_is_left(device: str) -> None:
    def read(item: int) -> tuple[int, Tensor]:
        if item == 11:
            raise ValueError("item 11")
        return item, torch.zeros(1)

    before = threading.active_count()
    stream = in_batches(range(1000), read, lambda x: x, 2, torch.device(device))
    assert [next(stream)[0] for _ in range(5)] == [[i, i + 1] for i in range(0, 10, 2)]
    with pytest.raises(ValueError, match="item 11"):
        next(stream)
    assert threading.active_count() == before


@DEVICES
def test_items_are_taken_a_few_batches_ahead_and_the_thread_count_is_given_back(device: str) -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        for item in range(1000):
            asked += 1
            yield item

    threads = torch.get_num_threads()
    stream = in_batches(items(), _read, lambda x: x, 2, torch.device(device))
    next(stream)
    assert asked <= 2 * (2 * threads + 4)
    stream.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_every_core_works_alone_without_gradients() -> None:
    def work(pixels: Tensor) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    found = {said for _, said in in_batches(range(1, 9, 3), _read, work, 1, torch.device("cpu"))}
    assert found == {(1, True)}


def test_a_single_batch_needs_no_other_thread_and_leaves_the_caller_its_threads() -> None:
    threads, where = torch.get_num_threads(), []

    def work(pixels: Tensor) -> int:
        where.append(threading.current_thread())
        return torch.get_num_threads()

    for _, said in in_batches([1, 2], _read, work, 2, torch.device("cpu")):
        assert said == 1
        assert torch.get_num_threads() == threads
    assert where == [threading.current_thread()]
