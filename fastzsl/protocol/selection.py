"""Class-wise cross-validation: settings and gamma chosen on held-out seen classes, never on test pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastzsl.data.held_out import HeldOut
from fastzsl.errors import UserError, nearest
from fastzsl.files.atomic import write_text_atomically
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.trials import Trial, TrialTable
from fastzsl.training.config import Config

RunTrials = Callable[[Sequence[Trial]], None]

DEFAULT_GRID: dict[str, tuple[Any, ...]] = {
    "alpha": (0.0, 0.005, 0.02, 0.1, 0.5),
    "eta": (0.0, 0.3, 1.0, 3.0),
    "attention_scale": (3.0, 10.0, 30.0),
    "temperature": (5.0, 10.0, 20.0),
    "epochs": (15, 30, 60),
}
"""Values around the defaults. `epochs` is the length of the schedule, at whose end the learning rate is 0:
choosing it is choosing the epoch at which training stops."""


@dataclass(frozen=True)
class Folds:
    """Cross-validation over classes: `repeats` times, the seen classes are cut into `folds` parts.

    Attributes:
        folds: parts; each plays the unseen classes once.
        repeats: how often the classes are shuffled and cut anew.
        seed: of the shuffling.
    """

    folds: int = 3
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1:
            raise UserError(
                f"{self.folds} folds, {self.repeats} repeats; wanted at least 2 folds and 1 repeat"
            )

    def problems(self) -> list[HeldOut]:
        """Every problem of the cross-validation."""
        return [
            HeldOut(self.seed * 10_007 + repeat, fold, self.folds)
            for repeat in range(self.repeats)
            for fold in range(self.folds)
        ]

    def __str__(self) -> str:
        return f"{self.folds} folds of the seen classes, {self.repeats} times, seed {self.seed}"


@dataclass(frozen=True)
class Draws:
    """`count` problems that hold out as large a share of the seen classes as the unseen ones are of all.

    The problems on which `fastzsl.protocol.calibration.choose_gamma` chooses gamma.
    """

    count: int
    seed: int = 0

    def problems(self) -> list[HeldOut]:
        """Every problem."""
        return [HeldOut(self.seed * 1000 + draw) for draw in range(self.count)]

    def __str__(self) -> str:
        return f"{self.count} problems of held-out seen classes, seed {self.seed}"


@dataclass(frozen=True)
class Candidate:
    """Settings that were tried, and how they did on the held-out classes.

    Attributes:
        changes: the settings that differ from the starting configuration.
        gamma: the calibration with the highest mean H over the folds.
        T1, H, AUSUC: means over the folds, H at `gamma`.
        spread: standard deviation over the folds of the objective.
    """

    changes: dict[str, Any]
    gamma: float
    T1: float
    H: float
    AUSUC: float
    spread: float


@dataclass(frozen=True)
class Selection:
    """What was chosen, and everything that was tried.

    Attributes:
        config: the starting configuration with the chosen settings.
        gamma: chosen with it.
        objective: "T1", "H" or "AUSUC", the figure that was maximised.
        chosen_on: one sentence for the results file.
        candidates: in the order in which they were tried.
    """

    config: Config
    gamma: float
    objective: str
    chosen_on: str
    candidates: list[Candidate]

    @property
    def best(self) -> Candidate:
        return max(self.candidates, key=lambda c: getattr(c, self.objective))

    def save_table(self, path: Path) -> None:
        """The table of trials as CSV, a row a candidate."""
        names = sorted({name for c in self.candidates for name in c.changes})
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([*names, "T1", "H", "AUSUC", "gamma", f"sd of {self.objective}", "chosen"])
        for c in self.candidates:
            values = [c.changes.get(name, getattr(self.config, name)) for name in names]
            figures = [f"{v:.4f}" for v in (c.T1, c.H, c.AUSUC, c.gamma, c.spread)]
            writer.writerow([*values, *figures, "chosen" if c is self.best else ""])
        write_text_atomically(path, text.getvalue())


def select(
    config: Config,
    grid: Mapping[str, Sequence[Any]],
    table: TrialTable,
    run: RunTrials,
    *,
    folds: Folds | Draws | None = None,
    objective: str = "H",
    rounds: int = 1,
) -> Selection:
    """Choose settings by coordinate search: one setting after the other takes its best value, the others
    fixed.

    Every trial is scored on held-out seen classes of the training pictures; `run_trials` hands a training the
    problem from `SeenClassesOnly`, whose sources raise on any other picture. All trials stay in `table`, so
    that a search that was stopped goes on where it was, and a wider grid trains only what is new.

    Args:
        config: where the search starts.
        grid: values to try for each field of `Config`, in the order in which they are settled.
        table: keeps the trials.
        run: trains what the table lacks, `functools.partial(run_trials, table=table)` as a rule.
        folds: the problems to score on; three folds, once, by default.
        objective: "T1", "H" (at the gamma that suits all folds best) or "AUSUC".
        rounds: passes over the grid; a pass that changes nothing ends the search.

    Raises:
        UserError: an unknown setting or objective.
    """
    if objective not in ("T1", "H", "AUSUC"):
        raise UserError(f'objective is "{objective}"; wanted "T1", "H" or "AUSUC"')
    for name in grid:
        if name not in vars(config):
            raise UserError(f"there is no setting {name}{nearest(name, list(vars(config)))}")
    folds = folds or Folds()
    problems = folds.problems()
    tried: dict[tuple[tuple[str, Any], ...], Candidate] = {}
    changes: dict[str, Any] = {name: getattr(config, name) for name in grid}

    def score(options: Iterable[dict[str, Any]]) -> list[Candidate]:
        new = {_key(o): o for o in options}
        wanted = [Trial(replace(config, **o), p) for k, o in new.items() if k not in tried for p in problems]
        run(wanted)
        for key, option in new.items():
            if key not in tried:
                tried[key] = _judge(config, option, problems, table, objective)
        return [tried[key] for key in new]

    score([changes])
    for _ in range(rounds):
        before = dict(changes)
        for name, values in grid.items():
            options = [{**changes, name: value} for value in dict.fromkeys((changes[name], *values))]
            changes = max(score(options), key=lambda c: getattr(c, objective)).changes
        if changes == before:
            break
    best = tried[_key(changes)]
    return Selection(
        config=replace(config, **best.changes),
        gamma=best.gamma,
        objective=objective,
        chosen_on=f"mean {objective} over {folds}; training pictures only, {len(tried)} candidates",
        candidates=list(tried.values()),
    )


def choose_epochs(config: Config, table: TrialTable, run: RunTrials) -> Selection:
    """The number of epochs among `config.choose_epochs`, and gamma, on the problems on which gamma is chosen.

    Maximises AUSUC, which needs no gamma of its own: with few problems the H of each epoch would be measured at a
    gamma fitted to them.

    Raises:
        UserError: no problem to choose on.
    """
    if not config.gamma_folds:
        raise UserError("--choose-epochs needs problems to choose on; wanted --gamma-folds above 0")
    start = replace(config, epochs=config.choose_epochs[0])
    return select(
        start,
        {"epochs": config.choose_epochs},
        table,
        run,
        folds=Draws(config.gamma_folds, config.seed),
        objective="AUSUC",
    )


def _key(changes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(changes.items()))


def _judge(
    config: Config, changes: dict[str, Any], problems: Sequence[HeldOut], table: TrialTable, objective: str
) -> Candidate:
    scores = [table[Trial(replace(config, **changes), problem)].scores for problem in problems]
    gamma = best_common_gamma(scores)
    results = [evaluate(s, gamma) for s in scores]
    mean = {name: sum(getattr(r, name) for r in results) / len(results) for name in ("T1", "H", "AUSUC")}
    spread = torch.tensor([getattr(r, objective) for r in results]).std().item() if len(results) > 1 else 0.0
    return Candidate(changes, gamma, mean["T1"], mean["H"], mean["AUSUC"], spread)
