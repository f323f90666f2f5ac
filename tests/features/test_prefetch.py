"""Prefetching: the same items in the same order, ahead of time, within its memory, and with its errors."""

from __future__ import annotations

import threading
import time

import pytest

from fastzsl.features.prefetch import prefetch


@pytest.mark.parametrize("count", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_every_item_comes_once_and_in_order(count: int, ahead: int) -> None:
    got = [(item, result) for item, result, _ in prefetch(range(count), lambda i: i * i, ahead)]
    assert got == [(i, i * i) for i in range(count)]


def test_reading_and_working_overlap() -> None:
    start = time.perf_counter()
    waited = 0.0
    for _, _, wait in prefetch(range(10), lambda i: time.sleep(0.05)):
        time.sleep(0.06)
        waited += wait
    assert time.perf_counter() - start < 0.95, "one after the other would take 1.1 s"
    assert waited < 0.3


def test_waiting_is_told() -> None:
    waits = [wait for _, _, wait in prefetch(range(3), lambda i: time.sleep(0.1))]
    assert sum(waits) > 0.25


def test_no_more_than_the_agreed_number_is_read_ahead() -> None:
    read: list[int] = []
    for item, _, _ in prefetch(range(20), read.append, ahead=2):
        time.sleep(0.01)
        assert max(read) <= item + 2


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    batches = prefetch(range(9), read)
    assert [next(batches)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(batches)


def test_leaving_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    batches = prefetch(range(1000), lambda i: i)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
