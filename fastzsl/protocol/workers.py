"""Train several trials at the same time, each in its own process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch
from rich.progress import Progress

from fastzsl.errors import UserError
from fastzsl.methods.catalogue import load_user_methods
from fastzsl.processors import usable
from fastzsl.protocol.trials import Loader, Trial, TrialTable, run_trial


def run_trials(
    trials: Sequence[Trial],
    table: TrialTable,
    *,
    workers: int = 0,
    load: Loader | None = None,
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
        keep_models: keep the weights of the trials on the real problem.

    Raises:
        UserError: raised by a training, or a worker was killed (most likely because memory ran out).
    """
    waiting = [t for t in {t.key: t for t in trials}.values() if t not in table]
    table.folder.mkdir(parents=True, exist_ok=True)
    task = progress.add_task(label, total=len(waiting)) if progress and waiting else None

    def done() -> None:
        if progress and task is not None:
            progress.advance(task)

    workers = min(workers or default_workers(trials), max(1, len(waiting)))
    if workers == 1:
        for trial in waiting:
            run_trial(trial, table, load, keep_models)
            done()
        return
    with _pool(workers) as pool:
        running: set[Future[None]] = {
            pool.submit(run_trial, trial, table, load, keep_models) for trial in waiting
        }
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    done()
        except BrokenProcessPool:
            raise UserError(
                f"a training process was killed, most likely for lack of memory; "
                f"--workers {max(1, workers // 2)} needs less, and what was finished is kept"
            ) from None
        finally:
            for future in running:
                future.cancel()


def default_workers(trials: Sequence[Trial]) -> int:
    """One process per core on the CPU, because a step is too small for several threads; one process on a GPU."""
    chosen = {t.accelerator for t in trials}
    on_gpu = torch.cuda.is_available() and chosen & {"auto", "cuda", "gpu"}
    return 1 if on_gpu else usable()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes of one thread each, so that their threads do not wait for each other.

    The processes keep freed memory. Otherwise glibc returns the memory of a batch to the system and requests it again
    in every step, which takes a sixth of a training's time.
    """
    settings = {  # read when a worker starts
        "OMP_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    context = multiprocessing.get_context("spawn")
    # A trial names its method's class, which may be in a user's file.
    pool = ProcessPoolExecutor(workers, context, initializer=load_user_methods)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
