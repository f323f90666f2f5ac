"""All trainings of an experiment, and their figures: data set × entry × seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.experiments.entries import Entry
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import Results, evaluate
from fastzsl.protocol.trials import Trial, TrialResult, TrialTable
from fastzsl.training.settings import Settings


@dataclass(frozen=True)
class Training:
    """One entry, trained with one seed on one data set, with the trainings that choose its gamma.

    Attributes:
        dataset: name in the tables.
        entry: which row.
        settings: with the entry's method and the seed.
        trial: the training on the real problem.
        folds: trainings on held-out seen classes; they see no test image.
        tried: number of settings that were compared on held-out seen classes before; 1 if nothing was searched.
    """

    dataset: str
    entry: Entry
    settings: Settings
    trial: Trial
    folds: tuple[Trial, ...]
    tried: int = 1

    @property
    def seed(self) -> int:
        return self.trial.seed

    @property
    def trials(self) -> tuple[Trial, ...]:
        return (self.trial, *self.folds)


@dataclass(frozen=True)
class TrainingResult:
    """A training's figures.

    Attributes:
        results: T1, U, S, H and so on, gamma chosen on the training's folds.
        trial_result: the scores and diagnostics behind them.
    """

    training: Training
    results: Results
    trial_result: TrialResult


@dataclass(frozen=True)
class Experiment:
    """Finished trainings, looked up by data set, entry and seed."""

    finished: list[TrainingResult] = field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(r.training.dataset for r in self.finished))

    @property
    def entries(self) -> list[Entry]:
        return list({r.training.entry.name: r.training.entry for r in self.finished}.values())

    def of(self, dataset: str, entry: str) -> list[TrainingResult]:
        """Results in the order of their seeds."""
        own = [r for r in self.finished if r.training.dataset == dataset and r.training.entry.name == entry]
        return sorted(own, key=lambda r: r.training.seed)

    def figures(self, dataset: str, entry: str, name: str) -> list[float]:
        """One figure of `Results` or of the trial's diagnostics, one value for each seed."""
        values = [
            getattr(r.results, name) if hasattr(r.results, name) else r.trial_result.diagnostics.get(name)
            for r in self.of(dataset, entry)
        ]
        return [float(v) for v in values if v is not None]


def plan(dataset: str, entry: Entry, settings: Settings, data: ZeroShotDataset, tried: int = 1) -> Training:
    """A training and its trials; gamma is chosen on the same problems as in `python -m fastzsl.train`.

    Args:
        settings: of the row, usually from `entry.configure`.
        data: the full data set.
    """
    count = settings.protocol.gamma_folds if settings.method.calibrated else 0
    draws = ClassDraws(count, settings.run.seed)
    folds = tuple(Trial.of(settings, data, problem) for problem in draws.problems())
    return Training(dataset, entry, settings, Trial.of(settings, data), folds, tried)


def trials_of(trainings: Sequence[Training]) -> list[Trial]:
    """All trials, those of one problem together."""
    return [trial for training in trainings for trial in training.trials]


def collect(trainings: Sequence[Training], table: TrialTable) -> Experiment:
    """Choose each training's gamma on its folds, and evaluate its test scores once with it."""
    finished = []
    for training in trainings:
        result = table[training.trial]
        gamma = best_common_gamma([table[t].scores for t in training.folds])
        finished.append(TrainingResult(training, evaluate(result.scores, gamma), result))
    return Experiment(finished)
