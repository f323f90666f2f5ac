"""Settings and gamma chosen on held-out seen classes, never on test images."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses
from fastzsl.errors import UserError, nearest
from fastzsl.files.atomic import write_text_atomically
from fastzsl.methods.method import Method
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.folds import ClassDraws, ClassFolds, Folds
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.trials import Trial, TrialTable
from fastzsl.training.settings import Settings

RunTrials = Callable[[Sequence[Trial]], None]
OBJECTIVES = ("T1", "H", "AUSUC")
SCHEDULE = ("epochs", "lr", "temperature")
"""Settings whose giver has decided on the training: no recipes are compared."""
HOPELESS = 0.6
"""A training whose AUSUC on the first problem is below this share of the best one's is not compared on the others."""


@dataclass(frozen=True)
class SearchPoint:
    """Settings that were tried, and their figures on the held-out classes.

    Attributes:
        changes: the settings that were searched.
        gamma: the calibration with the highest mean H over the folds.
        T1, H, AUSUC: means over the folds, H at `gamma`.
        spread: standard deviation over the folds of the objective.
        problems: number of folds on which it was tried.
    """

    changes: dict[str, Any]
    gamma: float
    T1: float
    H: float
    AUSUC: float
    spread: float
    problems: int


@dataclass(frozen=True)
class Selection:
    """The chosen settings, and everything that was tried.

    Attributes:
        settings: those where the search started, with the chosen values.
        gamma: chosen with them.
        objective: "T1", "H" or "AUSUC", the figure that was maximised.
        chosen_on: one sentence for the results file.
        points: in the order in which they were tried.
    """

    settings: Settings
    gamma: float
    objective: str
    chosen_on: str
    points: list[SearchPoint]

    @property
    def best(self) -> SearchPoint:
        return _best(self.points, self.objective)

    def save_table(self, path: Path) -> None:
        """The table of trials as CSV, with a row for every point."""
        names = sorted({name for p in self.points for name in p.changes})
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([*names, "T1", "H", "AUSUC", "gamma", f"sd of {self.objective}", "chosen"])
        for p in self.points:
            values = [p.changes.get(name, getattr(self.settings.method, name)) for name in names]
            figures = [f"{v:.4f}" for v in (p.T1, p.H, p.AUSUC, p.gamma, p.spread)]
            writer.writerow([*values, *figures, "chosen" if p is self.best else ""])
        write_text_atomically(path, text.getvalue())


def select(
    settings: Settings,
    data: ZeroShotDataset,
    grid: Mapping[str, Sequence[Any]],
    table: TrialTable,
    run: RunTrials,
    *,
    folds: Folds | None = None,
    objective: str = "H",
    rounds: int = 1,
    full: bool = False,
    limit: int = 0,
    options: Sequence[dict[str, Any]] = (),
    hopeless: float = 0.0,
) -> Selection:
    """Choose settings of a method: all combinations, a sample of them, or one setting after the other.

    Every trial is scored on held-out seen classes of the training images; a trial gets its problem from
    `SeenClassesOnly`, whose sources raise on any other image. All trials are saved in `table`, so
    a search that was stopped continues there, and a larger grid trains only the new points.

    Args:
        settings: where the search starts.
        data: the full data set.
        grid: values to try for each setting of the method, in the order in which the settings are chosen.
        table: where the trials are saved.
        run: trains the trials that are not in the table, usually `functools.partial(run_trials, table=table)`.
        folds: the problems to score on; three folds, once, by default.
        objective: "T1", "H" (at the gamma that suits all folds best) or "AUSUC".
        rounds: passes over the grid; a pass that changes nothing ends the search.
        full: try all combinations.
        limit: number of combinations to try: `settings` itself, `options`, and others drawn from the grid; 0 searches
            as `full` says.
        options: combinations to try, without `limit` instead of those of a grid.
        hopeless: options whose objective on the first problem is below this share of the best one's are not tried on
            the others.

    Raises:
        UserError: an unknown setting or objective, no rounds, or an empty list of values.
    """
    _check_search(settings.method, grid, objective, rounds)
    folds = folds or ClassFolds()
    problems = folds.problems()
    tried: dict[tuple[tuple[str, Any], ...], SearchPoint] = {}
    searched = dict.fromkeys((*grid, *(name for option in options for name in option)))
    changes: dict[str, Any] = {name: getattr(settings.method, name) for name in searched}

    def trial(option: Mapping[str, Any], problem: HeldOutClasses) -> Trial:
        return Trial.of(replace(settings, method=replace(settings.method, **option)), data, problem)

    def score(
        options: Iterable[dict[str, Any]], problems: Sequence[HeldOutClasses] = problems
    ) -> list[SearchPoint]:
        new = {_key(o): o for o in options}
        left = {k: o for k, o in new.items() if k not in tried or tried[k].problems < len(problems)}
        run([trial(o, p) for p in problems for o in left.values()])
        for key, option in left.items():
            tried[key] = _judge(option, [trial(option, p) for p in problems], table, objective)
        return [tried[key] for key in new]

    if limit:
        known = list({_key(o): o for o in (changes, *({**changes, **o} for o in options))}.values())[:limit]
        drawn = ({**changes, **point} for point in _sample(grid, limit - len(known), changes))
        score([*known, *drawn])
    elif options:
        if hopeless and len(options) > 1 and len(problems) > 1:
            first = [getattr(point, objective) for point in score(options, problems[:1])]
            options = [o for o, value in zip(options, first) if value >= hopeless * max(first)]
        score(options)
    elif full:
        score(dict(zip(grid, values)) for values in itertools.product(*grid.values()))
    else:
        score([changes])
        for _ in range(rounds):
            before = dict(changes)
            for name, values in grid.items():
                options = [{**changes, name: value} for value in dict.fromkeys((changes[name], *values))]
                changes = max(score(options), key=lambda p: getattr(p, objective)).changes
            if changes == before:
                break
    best = _best(tried.values(), objective)
    return Selection(
        settings=replace(settings, method=replace(settings.method, **best.changes)),
        gamma=best.gamma,
        objective=objective,
        chosen_on=f"mean {objective} over {folds}; training images only, {len(tried)} settings tried",
        points=list(tried.values()),
    )


def training_options(settings: Settings) -> list[dict[str, Any]]:
    """What `train` compares on held-out classes before the training; empty if nothing.

    Numbers of epochs, if some were named. Else the method's recipes and its defaults, unless it was given how long or
    how fast to train. Other settings that were given stay as they are in each.
    """
    method, protocol = settings.method, settings.protocol
    if protocol.choose_epochs:
        return [{"epochs": epochs} for epochs in protocol.choose_epochs]
    if protocol.recipe != "auto" or not protocol.gamma_folds or method.trains_backbone:
        return []
    if not method.recipes or any(name in method.given() for name in SCHEDULE):
        return []
    recipes = [method.recipe(name) for name in method.recipes]
    start = method.settings()
    own = {name: start[name] for name in dict.fromkeys(name for recipe in recipes for name in recipe)}
    return [own, *({**own, **recipe} for recipe in recipes)]


def choose_training(
    settings: Settings,
    data: ZeroShotDataset,
    options: Sequence[dict[str, Any]],
    table: TrialTable,
    run: RunTrials,
) -> Selection:
    """One of `options`, and gamma, on the problems on which gamma is chosen.

    Maximises AUSUC, which does not depend on gamma. H would be measured at a gamma that was fitted to the same few
    problems. Options that are `HOPELESS` on the first problem are not tried on the others.

    Raises:
        UserError: no problem to choose on.
    """
    count = settings.protocol.gamma_folds
    if not count:
        raise UserError("there are no problems to choose on; wanted --gamma-folds above 0")
    draws = ClassDraws(count, settings.run.seed)
    return select(
        settings, data, {}, table, run, folds=draws, objective="AUSUC", options=options, hopeless=HOPELESS
    )


def _best(points: Iterable[SearchPoint], objective: str) -> SearchPoint:
    """The best of those that were tried on all problems."""
    return max(points, key=lambda p: (p.problems, getattr(p, objective)))


def _sample(grid: Mapping[str, Sequence[Any]], count: int, start: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`count` different combinations of the grid other than `start`, drawn at random, the same ones every time."""
    every = math.prod(len(values) for values in grid.values())
    generator = random.Random(0)
    places = generator.sample(range(every), min(every, count + 1))
    drawn = []
    for place in places:
        point = {}
        for name, values in grid.items():
            place, i = divmod(place, len(values))
            point[name] = values[i]
        if any(start[name] != value for name, value in point.items()):
            drawn.append(point)
    return drawn[:count]


def _check_search(method: Method, grid: Mapping[str, Sequence[Any]], objective: str, rounds: int) -> None:
    if objective not in OBJECTIVES:
        raise UserError(f'objective is "{objective}"; wanted "T1", "H" or "AUSUC"')
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; wanted 1 or more")
    known = list(method.settings())
    for name, values in grid.items():
        if name not in known:
            raise UserError(f"the method {method.name} has no setting {name}{nearest(name, known)}")
        if not len(values):
            raise UserError(f"--grid {name}: no values")


def _key(changes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(changes.items()))


def _judge(
    changes: dict[str, Any], trials: Sequence[Trial], table: TrialTable, objective: str
) -> SearchPoint:
    scores = [table[trial].scores for trial in trials]
    gamma = best_common_gamma(scores)
    results = [evaluate(s, gamma) for s in scores]
    mean = {name: sum(getattr(r, name) for r in results) / len(results) for name in OBJECTIVES}
    spread = torch.tensor([getattr(r, objective) for r in results]).std().item() if len(results) > 1 else 0.0
    return SearchPoint(changes, gamma, mean["T1"], mean["H"], mean["AUSUC"], spread, len(trials))
