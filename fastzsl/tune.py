"""`python -m fastzsl.tune`: settings chosen by class-wise cross-validation on training images alone."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from fastzsl.command.console import open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.command.run_settings import base_settings, read_value
from fastzsl.data.formats.xlsa17 import KNOWN, validation_names
from fastzsl.errors import UserError
from fastzsl.experiments.sources import data_settings
from fastzsl.fabric import Fabric
from fastzsl.files.atomic import write_text_atomically
from fastzsl.methods.method import Method
from fastzsl.protocol.folds import ClassFolds, Folds, NamedClasses
from fastzsl.protocol.selection import Selection, select
from fastzsl.protocol.trials import TrialTable
from fastzsl.protocol.workers import run_trials
from fastzsl.report.tables import Table, print_table
from fastzsl.training.inputs import check_names, load_features
from fastzsl.training.settings import read_group, save_settings

DESCRIPTION = """Choose settings without test images. The seen classes are divided into folds, and each fold is held out
and used as unseen classes once. One setting after the other gets the value with the best mean over the folds. For
methods with fast training all combinations are tried.

Writes config.yaml for `python -m fastzsl.train --config`, trials.csv with everything that was tried, and
selection.json, which says what was chosen and on which data. A search that was stopped continues where it was.
"""


@dataclass(frozen=True)
class Settings:
    """What to search.

    Args:
        dataset: shapes, folder, or a benchmark.
        root: folder of the data.
        features: folder with NAME.h5 for a benchmark, as `python -m fastzsl.extract` makes them.
        out: output folder; default runs/tune-<dataset>, with the method's name if it is not the default method.
        method: the method to tune.
        grid: NAME=VALUE,VALUE,... in the order in which the settings are chosen; default: the method's own grid.
        folds: number of parts into which the seen classes are divided.
        validation_classes: names of seen classes to hold out, instead of folds; or "published" for those of a
            benchmark's own split file.
        repeats: how often the classes are shuffled and divided again.
        objective: figure to maximise, as a mean over the folds.
        rounds: passes over the grid.
        seed: of the folds.
        config: settings to start from, a run's config.yaml.
        set: settings as NAME=VALUE, after those of --config.
        workers: number of trainings at the same time; 0 is one per core.
    """

    dataset: str = "shapes"
    root: Path | None = None
    features: Path | None = None
    out: Path | None = None
    method: str | None = None
    grid: tuple[str, ...] = ()
    folds: int = 3
    validation_classes: tuple[str, ...] = ()
    repeats: int = 1
    objective: Literal["H", "T1", "AUSUC"] = "H"
    rounds: int = 1
    seed: int = 0
    config: Path | None = None
    set: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed is {self.seed}; wanted 0 to {2**31 - 1}")
        if self.rounds < 1:
            raise UserError(f"--rounds is {self.rounds}; wanted 1 or more")
        if not 0 <= self.workers <= 1024:
            raise UserError(f"--workers is {self.workers}; wanted 0 to 1024")


def tune(settings: Settings, console: Console | None = None) -> Selection:
    """Search, and write config.yaml, trials.csv and selection.json.

    Raises:
        UserError: anything wrong with the input.
    """
    console = console or open_console()
    base = base_settings(settings.config, settings.method, settings.set)
    start = data_settings(base, settings.dataset, settings.root, settings.features).with_recipe()
    check_names(start)
    method = start.method
    suffix = "" if method.name == "attended" else f"-{method.name}"
    out = settings.out or Path("runs") / f"tune-{settings.dataset}{suffix}"
    grid = read_grid(settings.grid, method) if settings.grid else dict(method.grid)
    folds = _folds(settings)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; wanted a folder")
    table = TrialTable(out / "trials")
    with progress_bars(console) as progress:
        device = Fabric(accelerator=start.run.accelerator, devices=1).device
        data = load_features(start.data, start.features, device, progress)
        run = functools.partial(
            run_trials, table=table, data=data, workers=settings.workers, progress=progress
        )
        found = select(
            start, data, grid, table, run,
            folds=folds, objective=settings.objective, rounds=settings.rounds,
            full=method.full_grid and not settings.grid,
        )  # fmt: skip
    save_settings(found.settings.with_absolute_paths(), out / "config.yaml")
    found.save_table(out / "trials.csv")
    chosen = {name: getattr(found.settings.method, name) for name in grid}
    record = {
        "method": method.name, "chosen": chosen, "gamma": found.gamma, "chosen_on": found.chosen_on,
    }  # fmt: skip
    write_text_atomically(out / "selection.json", json.dumps(record, indent=1) + "\n")
    print_table(_as_table(found, list(grid)), console)
    console.print(f"{out / 'config.yaml'}: chosen by {found.chosen_on}")
    return found


def _folds(settings: Settings) -> Folds:
    """The problems on which settings are compared.

    Raises:
        UserError: "published" for a data set without a published validation split.
    """
    names = settings.validation_classes
    if names == ("published",):
        if settings.dataset not in KNOWN or settings.root is None:
            known = ", ".join(KNOWN)
            raise UserError(
                f"--validation-classes published is for {known} with --root; give the classes' names"
            )
        names = validation_names(settings.dataset, settings.root)
    if names:
        return NamedClasses(names, settings.seed)
    return ClassFolds(settings.folds, settings.repeats, settings.seed)


def read_grid(items: tuple[str, ...], method: Method) -> dict[str, tuple[Any, ...]]:
    """`("alpha=0,0.1", "epochs=10,30")` as a grid of the method's settings.

    Raises:
        UserError: not of that form, no setting of the method, or a value that it does not take.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for item in items:
        name, sign, values = item.partition("=")
        if not sign or not all(v.strip() for v in values.split(",")):
            raise UserError(f"--grid {item}: wanted NAME=VALUE,VALUE,...")
        typed = []
        for value in values.split(","):
            plain = {**method.settings(), name: read_value(value, f"--grid {item}")}
            typed.append(getattr(read_group(type(method), plain, f"--grid {item}"), name))
        grid[name] = tuple(typed)
    return grid


def _as_table(found: Selection, names: list[str]) -> Table:
    rows = [
        [*(str(p.changes[n]) for n in names)]
        + [f"{100 * v:.1f}" for v in (p.T1, p.H, p.AUSUC, p.spread)]
        + ["chosen" if p is found.best else ""]
        for p in sorted(found.points, key=lambda p: -getattr(p, found.objective))
    ]
    header = [*names, "T1", "H", "AUSUC", f"sd of {found.objective}", ""]
    return Table("tried", "Means over held-out seen classes (%), best first.", header, rows)


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    tune(parse(Settings, arguments, "python -m fastzsl.tune", DESCRIPTION))


if __name__ == "__main__":
    main()
