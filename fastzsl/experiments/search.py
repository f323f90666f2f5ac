"""The settings of an entry, chosen on held-out seen classes with the same effort for every method."""

from __future__ import annotations

import functools
from pathlib import Path

from rich.progress import Progress

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.experiments.entries import Entry
from fastzsl.protocol.folds import ClassFolds
from fastzsl.protocol.selection import Selection, choose_training, select, training_options
from fastzsl.protocol.trials import TrialTable
from fastzsl.protocol.workers import run_trials
from fastzsl.training.settings import Settings


def search_entry(
    entry: Entry,
    settings: Settings,
    data: ZeroShotDataset,
    table: TrialTable,
    *,
    limit: int,
    workers: int,
    progress: Progress,
    label: str,
    out: Path,
) -> Selection:
    """Compare `limit` settings on three folds of the seen classes: the entry's own, its method's recipes, and others of
    the method's grid.

    Args:
        settings: of the row, usually from `entry.configure`.
        out: folder for <label>-search.csv, which lists everything that was tried.
    """
    grid = {k: v for k, v in settings.method.grid.items() if k not in entry.changes}
    run = functools.partial(
        run_trials, table=table, data=data, workers=workers, progress=progress, label=label
    )
    found = select(
        settings, data, grid, table, run, folds=ClassFolds(), objective="H", limit=limit,
        options=training_options(settings),
    )  # fmt: skip
    found.save_table(out / f"{label}-search.csv")
    return found


def choose_recipe(
    settings: Settings,
    data: ZeroShotDataset,
    table: TrialTable,
    *,
    workers: int,
    progress: Progress,
    label: str,
) -> Selection | None:
    """The recipe of the training that `python -m fastzsl.train` would take; None if the method has none."""
    options = training_options(settings)
    if not options:
        return None
    run = functools.partial(
        run_trials, table=table, data=data, workers=workers, progress=progress, label=label
    )
    return choose_training(settings, data, options, table, run)
