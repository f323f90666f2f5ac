"""`python -m fastzsl.tune`: settings chosen by class-wise cross-validation on training pictures alone."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning_fabric import Fabric
from rich.console import Console

from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse, progress_bars
from fastzsl.errors import UserError
from fastzsl.files.atomic import write_text_atomically
from fastzsl.protocol.selection import DEFAULT_GRID, Folds, Selection, select
from fastzsl.protocol.trials import TrialTable, run_trials
from fastzsl.report.tables import Table, print_table
from fastzsl.reproduce import base_config, source_config
from fastzsl.training.config import save_config
from fastzsl.training.inputs import prepare

DESCRIPTION = """Choose settings without looking at a test picture: the seen classes are cut into folds, each fold plays
the unseen classes once, and one setting after the other takes the value that does best on average.

Leaves config.yaml for `python -m fastzsl.train --config`, trials.csv with everything that was tried, and
selection.json, which says what was chosen on what. A search that was stopped goes on where it was.
"""


@dataclass(frozen=True)
class Settings:
    """What to search.

    Args:
        dataset: shapes, folder, or a benchmark.
        root: folder of the data.
        features: folder with NAME.h5 for a benchmark, as `python -m fastzsl.extract` makes them.
        out: where everything is left; default runs/tune-<dataset>.
        grid: NAME=VALUE,VALUE,... in the order in which they are settled; default: alpha, eta,
            attention_scale, temperature and epochs around their defaults.
        folds: parts of the seen classes.
        repeats: how often the classes are shuffled and cut anew.
        objective: what to maximise, mean over the folds.
        rounds: passes over the grid.
        seed: of the folds.
        config: settings to start from, a run's config.yaml.
        set: settings as NAME=VALUE, after those of --config.
        workers: trainings side by side; 0 is one a core.
    """

    dataset: str = "shapes"
    root: Path | None = None
    features: Path | None = None
    out: Path | None = None
    grid: tuple[str, ...] = ()
    folds: int = 3
    repeats: int = 1
    objective: Literal["H", "T1", "AUSUC"] = "H"
    rounds: int = 1
    seed: int = 0
    config: Path | None = None
    set: tuple[str, ...] = ()
    workers: int = 0


def tune(settings: Settings, console: Console | None = None) -> Selection:
    """Search, and leave config.yaml, trials.csv and selection.json.

    Raises:
        UserError: anything in the input that the user can mend.
    """
    console = console or Console()
    config = source_config(base_config(settings.config, settings.set), settings.dataset, settings)
    out = settings.out or Path("runs") / f"tune-{settings.dataset}"
    table = TrialTable(out / "trials")
    grid = read_grid(settings.grid) if settings.grid else DEFAULT_GRID
    folds = Folds(settings.folds, settings.repeats, settings.seed)
    with progress_bars(console) as progress:
        prepare(config, Fabric(accelerator=config.accelerator, devices=1).device, progress)
        run = functools.partial(run_trials, table=table, workers=settings.workers, progress=progress)
        selection = select(
            config, grid, table, run, folds=folds, objective=settings.objective, rounds=settings.rounds
        )
    save_config(selection.config, out / "config.yaml")
    selection.save_table(out / "trials.csv")
    chosen = {name: getattr(selection.config, name) for name in grid}
    record = {"chosen": chosen, "gamma": selection.gamma, "chosen_on": selection.chosen_on}
    write_text_atomically(out / "selection.json", json.dumps(record, indent=1) + "\n")
    print_table(_as_table(selection, list(grid)), console)
    console.print(f"{out / 'config.yaml'}: chosen by {selection.chosen_on}", highlight=False)
    return selection


def read_grid(items: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """`("alpha=0,0.1", "epochs=10,30")` as a grid.

    Raises:
        UserError: not of that form.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for item in items:
        name, sign, values = item.partition("=")
        if not sign or not values:
            raise UserError(f"--grid {item}: wanted NAME=VALUE,VALUE,...")
        grid[name] = tuple(_value(v) for v in values.split(","))
    return grid


def _value(text: str) -> Any:
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)


def _as_table(selection: Selection, names: list[str]) -> Table:
    rows = [
        [*(str(c.changes[n]) for n in names)]
        + [f"{100 * v:.1f}" for v in (c.T1, c.H, c.AUSUC, c.spread)]
        + ["chosen" if c is selection.best else ""]
        for c in sorted(selection.candidates, key=lambda c: -getattr(c, selection.objective))
    ]
    header = [*names, "T1", "H", "AUSUC", f"sd of {selection.objective}", ""]
    return Table("tried", "Means over held-out seen classes (%), best first.", header, rows)


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    tune(parse(Settings, arguments, "python -m fastzsl.tune", DESCRIPTION))


if __name__ == "__main__":
    main()
