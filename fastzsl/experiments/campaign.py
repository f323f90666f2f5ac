"""All trials of an experiment, and their outcomes put together again: data set × variant × seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fastzsl.experiments.variants import FULL, Variant
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.metrics import Results, evaluate
from fastzsl.protocol.selection import Draws
from fastzsl.protocol.trials import Outcome, Trial, TrialTable
from fastzsl.training.config import Config


@dataclass(frozen=True)
class Cell:
    """One variant, trained with one seed on one data set, with the trainings that choose its gamma.

    Attributes:
        dataset: name in the tables.
        variant, seed: which.
        trial: the training on the real problem.
        folds: trainings on held-out seen classes; they see no test picture.
    """

    dataset: str
    variant: Variant
    seed: int
    trial: Trial
    folds: tuple[Trial, ...]


@dataclass(frozen=True)
class Measured:
    """A cell's figures.

    Attributes:
        results: T1, U, S, H and so on, gamma chosen on the cell's folds.
        outcome: the scores and facts behind them.
    """

    cell: Cell
    results: Results
    outcome: Outcome


@dataclass(frozen=True)
class Campaign:
    """A table of finished trials, looked up by data set, variant and seed."""

    measured: list[Measured] = field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(m.cell.dataset for m in self.measured))

    @property
    def variants(self) -> list[Variant]:
        found = {m.cell.variant.name: m.cell.variant for m in self.measured}
        return list(found.values())

    def of(self, dataset: str, variant: str) -> list[Measured]:
        """Measurements in the order of their seeds."""
        own = [m for m in self.measured if m.cell.dataset == dataset and m.cell.variant.name == variant]
        return sorted(own, key=lambda m: m.cell.seed)

    def figures(self, dataset: str, variant: str, name: str) -> list[float]:
        """One figure of `Results`, or of the trial's facts, a value a seed."""
        return [
            float(getattr(m.results, name) if hasattr(m.results, name) else m.outcome.facts[name])
            for m in self.of(dataset, variant)
            if hasattr(m.results, name) or name in m.outcome.facts
        ]


def seeded(config: Config, seed: int, random_splits: bool) -> Config:
    """The configuration of one repetition.

    Every repetition of `shapes` has classes, pictures and split of its own. Another data set keeps its
    published split, on which only the initial weights and the order of the pictures change, unless
    `random_splits`.
    """
    if config.dataset == "shapes":
        return replace(config, seed=seed, data_seed=seed)
    return replace(config, seed=seed, class_split=seed if random_splits else config.class_split)


def make_cell(dataset: str, variant: Variant, config: Config) -> Cell:
    """A cell and its trials; gamma is chosen on the same problems as in `python -m fastzsl.train`."""
    own = variant.configure(config)
    folds = tuple(Trial(own, problem) for problem in Draws(config.gamma_folds, config.seed).problems())
    return Cell(dataset, variant, config.seed, Trial(own), folds)


def make_cells(
    sources: Sequence[tuple[str, Config]],
    variants: Sequence[Variant],
    seeds: Sequence[int],
    random_splits: bool,
) -> list[Cell]:
    """All cells, those of one data set and seed together so that a process reads the data once."""
    return [
        make_cell(name, variant, seeded(config, seed, random_splits))
        for name, config in sources
        for seed in seeds
        for variant in variants
    ]


def trials_of(cells: Sequence[Cell]) -> list[Trial]:
    return [trial for cell in cells for trial in (cell.trial, *cell.folds)]


def collect(cells: Sequence[Cell], table: TrialTable) -> Campaign:
    """Choose each cell's gamma on its folds, and evaluate its test scores once with it."""
    measured = []
    for cell in cells:
        outcome = table[cell.trial]
        gamma = best_common_gamma([table[t].scores for t in cell.folds]) if cell.folds else 0.0
        measured.append(Measured(cell, evaluate(outcome.scores, gamma), outcome))
    return Campaign(measured)


__all__ = [
    "FULL",
    "Campaign",
    "Cell",
    "Measured",
    "collect",
    "make_cell",
    "make_cells",
    "seeded",
    "trials_of",
]
