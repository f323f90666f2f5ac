"""Saved trainings. Each has a folder named after what decides its result, so none is done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses, SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.features.engines import choose_engine
from fastzsl.files.atomic import write_text_atomically
from fastzsl.files.tensors import load_tensors, save_tensors
from fastzsl.methods.context import Context
from fastzsl.methods.method import Method
from fastzsl.protocol.attention import attention_separation, localisation
from fastzsl.protocol.metrics import TestScores, conventional_accuracy, seen_unseen_curve
from fastzsl.protocol.pipeline import fit_and_score
from fastzsl.training.finetuning import VERSION as FINETUNING
from fastzsl.training.launch import open_fabric
from fastzsl.training.settings import DataSettings, FeatureSettings, Settings

LOSSES_AT_END = 10


@dataclass(frozen=True)
class Source:
    """Where a trial's data set is found. The trial's identity depends on the data set's content, not on its place."""

    data: DataSettings
    features: FeatureSettings

    @classmethod
    def of(cls, settings: Settings) -> Source:
        return cls(settings.data, settings.features)


Loader = Callable[[Source], ZeroShotDataset]


@dataclass(frozen=True)
class Trial:
    """One training and the problem on which it is scored.

    Attributes:
        source: where the data set is found.
        data_identity: of the data set's content, `ZeroShotDataset.identity()`.
        method: with its settings.
        seed: of the training.
        held_out: the problem of held-out seen classes, or None for the real one with its test images.
        accelerator, precision: Fabric's. The accelerator is not part of the identity.
    """

    source: Source
    data_identity: str
    method: Method
    seed: int
    held_out: HeldOutClasses | None = None
    accelerator: str = "auto"
    precision: str = "32-true"

    @classmethod
    def of(cls, settings: Settings, data: ZeroShotDataset, held_out: HeldOutClasses | None = None) -> Trial:
        """The trial of a run's settings on its data set."""
        run = settings.run
        source = Source.of(settings)
        return cls(
            source, data.identity(), settings.method, run.seed, held_out, run.accelerator, run.precision
        )

    def identity(self) -> dict[str, Any]:
        """All that decides the result."""
        features = self.source.features
        made: dict[str, Any] = {
            "backbone": features.backbone,
            "weights": _weights_identity(features),
            "image_size": features.image_size,
        }
        if self.source.data.features is None:  # they are extracted
            made["engine"] = choose_engine(features.engine, "cpu")
        if features.views != "one":
            made["views"] = features.views
        if features.finetune_epochs:
            made["finetuned"] = [FINETUNING, features.finetune_epochs]
        return {
            "data": self.data_identity,
            "features": made,
            **self.method.identity(),
            "seed": self.seed,
            "held_out": asdict(self.held_out) if self.held_out else None,
            "precision": self.precision,
        }

    @property
    def key(self) -> str:
        """Name of the trial's folder."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


def _weights_identity(features: FeatureSettings) -> Any:
    """The identity of weights: their name, or the size and modification time of their file."""
    if features.backbone_weights in (None, "random"):
        return features.backbone_weights
    path = Path(str(features.backbone_weights))
    status = path.stat() if path.exists() else None
    return [path.name, status.st_size, status.st_mtime_ns] if status else path.name


@dataclass(frozen=True)
class TrialResult:
    """The result of a finished trial.

    Attributes:
        scores: of its test images, or of its held-out seen classes.
        diagnostics: T1, AUSUC, loss, fit_seconds, score_seconds_per_1000; on the real problem also the attention's
            overlap and entropy, and where masks are known how often its maximum is on the object, and how often a
            random region is.
    """

    scores: TestScores
    diagnostics: dict[str, Any]


class TrialTable:
    """A folder of finished trials, `<key>/trial.json`, `scores.safetensors` and `model.safetensors`.

    trial.json is written last, and a trial counts as finished only if it exists. So a killed run leaves no trial that
    looks finished, and the next run trains only the missing ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, trial: Trial) -> Path:
        return self.folder / trial.key

    def __contains__(self, trial: Trial) -> bool:
        return (self.path(trial) / "trial.json").is_file()

    def add(self, trial: Trial, result: TrialResult, model: torch.nn.Module | None) -> None:
        path = self.path(trial)
        path.mkdir(parents=True, exist_ok=True)
        save_tensors(path / "scores.safetensors", vars(result.scores))
        if model is not None:
            save_tensors(path / "model.safetensors", model.state_dict())
        record = {
            "identity": trial.identity(),
            "settings": trial.method.settings(),
            "diagnostics": result.diagnostics,
        }
        write_text_atomically(path / "trial.json", json.dumps(record, indent=1) + "\n")

    def __getitem__(self, trial: Trial) -> TrialResult:
        path = self.path(trial)
        try:
            diagnostics = json.loads((path / "trial.json").read_text(encoding="utf-8"))["diagnostics"]
        except FileNotFoundError:
            raise KeyError(trial.key) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{path / 'trial.json'}: not whole; remove {path} to train it again") from None
        return TrialResult(TestScores(**load_tensors(path / "scores.safetensors")), diagnostics)


def run_trial(trial: Trial, table: TrialTable, load: Loader | None = None, keep_model: bool = True) -> None:
    """Train one trial, score it and put it into the table.

    On a CPU it uses one thread, so that its result does not depend on how many trials run at the same time.

    Raises:
        UserError: the data set is no longer the one that the trial was made for.
    """
    data = _load(trial, load)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        table.add(trial, *_train_and_score(trial, data, keep_model))
    finally:
        torch.set_num_threads(threads)


def _train_and_score(
    trial: Trial, data: ZeroShotDataset, keep_model: bool
) -> tuple[TrialResult, torch.nn.Module | None]:
    if not len(data.test_unseen):
        raise UserError(
            f"data set {data.name} has no image of an unseen class; experiments compare methods on such images"
        )
    losses: list[float] = []
    context = Context(
        open_fabric(trial.accelerator, trial.precision),
        seed=trial.seed,
        listener=lambda step, total, figures: losses.append(figures.get("loss", 0.0)),
    )
    model, scores, fit_seconds, score_seconds = fit_and_score(data, trial.method, context)
    images = len(scores.seen_labels) + len(scores.unseen_labels)
    diagnostics: dict[str, Any] = {
        "T1": conventional_accuracy(scores),
        "AUSUC": seen_unseen_curve(scores).area,
        "fit_seconds": fit_seconds,
        "score_seconds_per_1000": 1000 * score_seconds / images,
    }
    if losses:
        diagnostics["loss"] = sum(losses[-LOSSES_AT_END:]) / len(losses[-LOSSES_AT_END:])
    if trial.held_out is not None:
        return TrialResult(scores, diagnostics), None
    where = localisation(model, data, data.test_unseen)
    if where:
        diagnostics |= {"attention_on_object": where.hits, "attention_chance": where.chance}
    apart = attention_separation(model, data)
    if apart:
        diagnostics |= {"attention_overlap": apart.overlap, "attention_entropy": apart.entropy}
    return TrialResult(scores, diagnostics), model if keep_model else None


def _load(trial: Trial, load: Loader | None) -> ZeroShotDataset:
    """The trial's data set, or its problem of held-out classes; kept in memory for the next trial."""
    if trial.method.trains_backbone:
        raise UserError("--train-backbone: experiments over many trainings work on cached features")
    key = (trial.source, load)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = ((load or load_source)(trial.source), {})
    data, problems = _loaded[key]
    if data.identity() != trial.data_identity:
        _loaded.clear()
        raise UserError(
            f"data set {data.name} is not the one that the trials were made for; its files changed meanwhile: "
            "start again"
        )
    if trial.held_out is None:
        return data
    if trial.held_out not in problems:
        problems[trial.held_out] = SeenClassesOnly(data).problem(trial.held_out)
    return problems[trial.held_out]


def prepare_problems(trials: Sequence[Trial], load: Loader | None = None) -> None:
    """Fine-tune the backbones that the trials need, with all threads, before processes of one thread share them."""
    for trial in trials:
        if trial.source.features.finetune_epochs:
            _load(trial, load)


def keep_loaded(trial: Trial, data: ZeroShotDataset, load: Loader | None = None) -> None:
    """Use `data` for this trial and others of its source, in this process and its forks, instead of reading it."""
    key = (trial.source, load)
    if key not in _loaded or _loaded[key][0].identity() != data.identity():
        _loaded.clear()
        _loaded[key] = (data, {})


def load_source(source: Source) -> ZeroShotDataset:
    """A source's data set with its features, extracted on the CPU if they are not in the cache."""
    from rich.console import Console
    from rich.progress import Progress

    from fastzsl.training.inputs import load_features

    with Progress(console=Console(quiet=True)) as progress:
        return load_features(source.data, source.features, torch.device("cpu"), progress)


_Loaded = tuple[ZeroShotDataset, dict[HeldOutClasses, ZeroShotDataset]]
_loaded: dict[tuple[Source, Loader | None], _Loaded] = {}
"""The one data set that this process read last, and its problems of held-out classes."""

__all__ = [
    "Loader", "Source", "Trial", "TrialResult", "TrialTable", "keep_loaded", "load_source",
    "prepare_problems", "run_trial",
]  # fmt: skip
