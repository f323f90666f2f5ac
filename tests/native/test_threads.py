"""Calls from several Python threads, in a forked child, and with the interpreter's lock released."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from native_inputs import make

from fastzsl.ops import attended_scores, dense_attention, native


def test_calls_from_several_threads_do_not_disturb_each_other(seed: int) -> None:
    cases = [[t.detach() for t in make(4, 20, 30 + i, 100, 12)] for i in range(8)]
    alone = [attended_scores(*case, backend="native") for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            together = list(pool.map(lambda case: attended_scores(*case, backend="native"), cases))
            assert all(torch.equal(a, b) for a, b in zip(alone, together))


def test_the_interpreter_runs_on_during_a_call(seed: int) -> None:
    inputs = [t.detach() for t in make(32, 49, 200, 1024, 100)]
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = ticks[0]
        for _ in range(5):
            native.scores_forward(*inputs, "dot", 1.0, "prototype", False)
        assert ticks[0] - start > 5
    finally:
        torch.set_num_threads(before)
        done.set()
        ticker.join()


def _child(queue: multiprocessing.Queue[float]) -> None:
    regions, queries = torch.ones(8, 20, 64), torch.ones(40, 64)
    queue.put(float(dense_attention(regions, queries, backend="native").sum()))


def test_a_forked_child_can_call_too() -> None:
    dense_attention(torch.ones(8, 20, 64), torch.ones(40, 64), backend="native")  # starts threads
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == pytest.approx(8 * 40 * 64)
    child.join(60)
    assert child.exitcode == 0
