"""Calls from several Python threads, in a forked child, and with the interpreter's lock released."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from native_inputs import make

from fastzsl.ops import attended_scores, dense_attention, native


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def runs_on_threads(multiply_adds: int) -> bool:
    """Whether a call of this size is given to more than one thread; smaller ones prove nothing here."""
    return native.threads_for(multiply_adds) > 1


def test_calls_from_several_threads_do_not_disturb_each_other(seed: int) -> None:
    assert runs_on_threads(4 * 49 * 60 * 256)
    cases = [[t.detach() for t in make(4, 49, 60 + i, 256, 12)] for i in range(8)]
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
    torch.set_num_threads(1)
    try:
        start = ticks[0]
        for _ in range(5):
            native.scores_forward(*inputs, "dot", 1.0, "prototype", False)
        assert ticks[0] - start > 5
    finally:
        done.set()
        ticker.join()


def _call(inputs: list[torch.Tensor]) -> float:
    # One number, and inputs from the parent: PyTorch's own threads hang in a forked child, were it to use them.
    return float(dense_attention(*inputs, backend="native")[7, 79, 127])


def _child(queue: multiprocessing.Queue[float], inputs: list[torch.Tensor]) -> None:
    queue.put(_call(inputs))


def test_a_forked_child_can_call_too() -> None:
    inputs = [torch.ones(8, 40, 128), torch.ones(80, 128)]
    assert runs_on_threads(8 * 40 * 80 * 128)
    assert _call(inputs) == pytest.approx(1)  # starts threads, which are not in the child
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, inputs))
    child.start()
    assert queue.get(timeout=60) == pytest.approx(1)
    child.join(60)
    assert child.exitcode == 0
