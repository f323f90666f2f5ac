"""Train several trials at the same time, each in its own process."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch
from rich.progress import Progress

from fastzsl.allocator import keep_freed_memory
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.methods.catalogue import load_user_methods
from fastzsl.processors import usable
from fastzsl.protocol.trials import Loader, Trial, TrialTable, keep_loaded, prepare_problems, run_trial

CHECK_SECONDS = 5.0
"""How long to wait for a result before the pool's thread is looked at."""


def run_trials(
    trials: Sequence[Trial],
    table: TrialTable,
    *,
    workers: int = 0,
    load: Loader | None = None,
    data: ZeroShotDataset | None = None,
    keep_models: bool = True,
    progress: Progress | None = None,
    label: str = "training",
) -> None:
    """Train every trial that is not in the table yet.

    Args:
        trials: duplicates are trained once. Trials of one problem should follow each other, because a process
            keeps the data that they share.
        workers: number of processes; 0 is one per core on the CPU and one on a GPU, 1 trains in this process.
        load: finds a source's data set; the default reads it with its features.
        data: the data set of the first trial, if this process has it: it is not read again.
        keep_models: keep the weights of the trials on the real problem.

    Raises:
        UserError: raised by a training, or a worker was killed (most likely because memory ran out).
    """
    waiting = [t for t in {t.key: t for t in trials}.values() if t not in table]
    table.folder.mkdir(parents=True, exist_ok=True)
    task = progress.add_task(label, total=len(waiting)) if progress and waiting else None

    if data is not None and waiting:
        keep_loaded(waiting[0], data, load)
    prepare_problems(waiting, load)

    def done() -> None:
        if progress and task is not None:
            progress.advance(task)

    workers = min(workers or default_workers(trials), max(1, len(waiting)))
    if workers == 1:
        for trial in waiting:
            run_trial(trial, table, load, keep_models)
            done()
        return
    others = _serving_threads()
    with _pool(workers, forked=sys.platform == "linux" and not _use_gpu(waiting)) as pool:
        running: set[Future[None]] = set()
        with warnings.catch_warnings():
            # Python 3.12 and later warn of every fork beside other threads; see `_pool`.
            warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
            running |= {pool.submit(run_trial, trial, table, load, keep_models) for trial in waiting}
        try:
            serving = _serving_threads() - others
            while running:
                finished, running = wait(running, CHECK_SECONDS, return_when=FIRST_COMPLETED)
                if not finished and not all(thread.is_alive() for thread in serving):
                    raise BrokenProcessPool
                for future in finished:
                    future.result()
                    done()
        except BrokenProcessPool:
            raise UserError(
                f"a training process was killed or ended early, most likely for lack of memory; "
                f"--workers {max(1, workers // 2)} needs less, and what was finished is kept"
            ) from None
        finally:
            for future in running:
                future.cancel()


def default_workers(trials: Sequence[Trial]) -> int:
    """One process per core on the CPU, because a step is too small for several threads; one process on a GPU."""
    return 1 if _use_gpu(trials) else usable()


def _use_gpu(trials: Sequence[Trial]) -> bool:
    return torch.cuda.is_available() and any(t.accelerator in ("auto", "cuda", "gpu") for t in trials)


@contextlib.contextmanager
def _pool(workers: int, *, forked: bool) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, so that their threads do not wait for each other.

    Args:
        forked: as forks of this process, which share the data set that it holds and import nothing again: two fresh
            ones took 4 s before their first step. A fork does not have the threads of this process; with one thread it
            needs none. A driver of a GPU does not survive a fork, nor do the libraries of systems other than Linux.
    """
    context = multiprocessing.get_context("fork" if forked else "spawn")
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in before:  # nobody told it to end
                process.kill()
                process.join()


def _serving_threads() -> set[threading.Thread]:
    """The threads of pools. If one ends for lack of memory, its pool does not say so, and no result ever comes."""
    return {t for t in threading.enumerate() if type(t).__module__ == "concurrent.futures.process"}


def _begin(parent: int) -> None:
    """First call of a process that works for the process `parent`."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        _end_with(parent)
    keep_freed_memory()
    load_user_methods()  # a trial names its method's class, which may be in a user's file


def _end_with(parent: int) -> None:
    """A process that waits for work does not see that nobody is left to give it any."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


PR_SET_PDEATHSIG = 1
"""Of sys/prctl.h."""
