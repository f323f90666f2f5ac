"""Many trainings at once: each a process's work, each kept in a folder of its own, none done twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.find import Sources
from fastzsl.data.held_out import HeldOut, SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.files.atomic import write_text_atomically
from fastzsl.files.tensors import load_tensors, save_tensors
from fastzsl.protocol.metrics import TestScores, per_class_accuracy, seen_unseen_curve
from fastzsl.protocol.scoring import localisation, test_scores
from fastzsl.protocol.separation import attention_separation
from fastzsl.training.config import Config
from fastzsl.training.inputs import feature_dim, prepare
from fastzsl.training.loop import build_model, fit

Loader = Callable[[Config], ZeroShotDataset]


@dataclass(frozen=True)
class Trial:
    """One training and what it is scored on.

    Attributes:
        config: settings; `out`, `resume`, `gamma_folds` and `choose_epochs` play no part.
        held_out: the problem of held-out seen classes, or None for the real one with its test pictures.
    """

    config: Config
    held_out: HeldOut | None = None

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result."""
        values = self.config.training_settings()
        for name in ("gamma_folds", "choose_epochs"):
            values.pop(name)
        return {**values, "held_out": asdict(self.held_out) if self.held_out else None}

    @property
    def key(self) -> str:
        """Name of the trial's folder: changes with any setting."""
        return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What a finished trial left.

    Attributes:
        scores: of its test pictures, or of its held-out seen classes.
        facts: T1, AUSUC, loss, seconds; on the real problem also the attention's overlap and entropy, and
            where masks are known how often its maximum is on the object, and how often a random region is.
    """

    scores: TestScores
    facts: dict[str, Any]


class TrialTable:
    """A folder of finished trials, `<key>/trial.json`, `scores.safetensors` and `model.safetensors`.

    A trial is there when its trial.json is, which is written last: a killed run leaves nothing that looks
    finished, and the next run does only what is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, trial: Trial) -> Path:
        return self.folder / trial.key

    def __contains__(self, trial: Trial) -> bool:
        return (self.path(trial) / "trial.json").is_file()

    def add(self, trial: Trial, outcome: Outcome, model: torch.nn.Module | None) -> None:
        path = self.path(trial)
        path.mkdir(parents=True, exist_ok=True)
        save_tensors(path / "scores.safetensors", vars(outcome.scores))
        if model is not None:
            save_tensors(path / "model.safetensors", model.state_dict())
        record = {"settings": trial.settings(), "facts": outcome.facts}
        write_text_atomically(path / "trial.json", json.dumps(record, indent=1) + "\n")

    def __getitem__(self, trial: Trial) -> Outcome:
        path = self.path(trial)
        try:
            facts = json.loads((path / "trial.json").read_text(encoding="utf-8"))["facts"]
        except FileNotFoundError:
            raise KeyError(trial.key) from None
        except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
            raise UserError(f"{path / 'trial.json'}: not whole; remove {path} to train it again") from None
        return Outcome(TestScores(**load_tensors(path / "scores.safetensors")), facts)


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
    """Train every trial that the table does not hold yet.

    Args:
        trials: duplicates are trained once.
        workers: processes side by side; 0 takes one a core on the CPU and one on a GPU, 1 trains in this
            process.
        load: finds a configuration's data set; the default reads it with its features.
        keep_models: keep the weights of the trials on the real problem.

    Raises:
        UserError: what a training raises, or a worker was killed (out of memory, most likely).
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
    """One process a core on the CPU (a step is too small to share), one where a GPU does the work."""
    chosen = {t.config.accelerator for t in trials}
    on_gpu = torch.cuda.is_available() and chosen & {"auto", "cuda", "gpu"}
    return 1 if on_gpu else os.cpu_count() or 1


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each with its share of the cores: teams that fight for one are slow.

    They keep the memory that they free. glibc would give a batch back to the system and ask for it again in every
    step, a sixth of a training's time.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    settings = {  # read when a worker starts
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def run_trial(trial: Trial, table: TrialTable, load: Loader | None = None, keep_model: bool = True) -> None:
    """Train one trial, score it and put it into the table."""
    data = (load or load_data)(trial.config)
    if trial.held_out is not None:
        data = SeenClassesOnly(data).problem(trial.held_out)
    started = time.perf_counter()
    losses: list[float] = []
    fabric = Fabric(accelerator=trial.config.accelerator, devices=1, precision=trial.config.precision)
    model = build_model(data, trial.config, feature_dim(data, None))
    with _tiny_numbers_as_zero():
        fit(model, data, trial.config, fabric, listener=lambda step, figures: losses.append(figures["loss"]))
    scores = test_scores(model, data)
    facts: dict[str, Any] = {
        "T1": conventional(scores),
        "AUSUC": seen_unseen_curve(scores).area,
        "loss": sum(losses[-10:]) / len(losses[-10:]),
        "seconds": time.perf_counter() - started,
    }
    if trial.held_out is None:
        where = localisation(model, data, data.test_unseen)
        if where:
            facts |= {"attention_on_object": where.hits, "attention_chance": where.chance}
        apart = attention_separation(model, data)
        if apart:
            facts |= {"attention_overlap": apart.overlap, "attention_entropy": apart.entropy}
    table.add(trial, Outcome(scores, facts), model if keep_model and trial.held_out is None else None)


@contextlib.contextmanager
def _tiny_numbers_as_zero() -> Iterator[None]:
    """Flush denormal numbers to zero.

    Without manifold alignment the attention ends on a single region; the weights of the others, and the
    gradients that pass through them, are denormal numbers, with which a processor computes many times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def conventional(scores: TestScores) -> float:
    """T1 of equation 8."""
    found = scores.unseen[scores.unseen_scores[:, scores.unseen].argmax(1)]
    return float(per_class_accuracy(found, scores.unseen_labels, scores.unseen).nanmean())


def load_data(config: Config) -> ZeroShotDataset:
    """The configuration's data set with its features; kept in memory for the next trial of the same set."""
    if config.train_backbone:
        raise UserError("--train-backbone: experiments over many trainings work on cached features")
    source = tuple(
        getattr(config, name) for name in (*Sources._fields, "class_split", "backbone", "backbone_weights")
    )
    if source not in _loaded:
        _loaded.clear()
        with Progress(console=Console(quiet=True)) as progress:
            _loaded[source] = prepare(config, torch.device("cpu"), progress)[0]
    return _loaded[source]


_loaded: dict[tuple[Any, ...], ZeroShotDataset] = {}
"""The one data set that this process read last."""
