"""`python -m fastzsl.reproduce`: the paper's experiments on any data set, compared with its published figures."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from fastzsl.command.console import ProgressBars, open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.command.run_settings import base_settings
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.experiments.entries import ABLATIONS, FULL, Entry, find_entries, is_family
from fastzsl.experiments.experiment import Experiment, Training, collect, plan, trials_of
from fastzsl.experiments.method_table import method_table
from fastzsl.experiments.report import write_experiment_report
from fastzsl.experiments.search import choose_recipe, search_entry
from fastzsl.experiments.sources import data_settings, seeded
from fastzsl.experiments.sweep import SweepTrials, sweep_rows, sweep_trials
from fastzsl.experiments.tables import attention_table, differences, table_1, table_2
from fastzsl.fabric import Fabric
from fastzsl.files.atomic import write_text_atomically
from fastzsl.protocol.selection import Selection
from fastzsl.protocol.trials import Trial, TrialTable
from fastzsl.protocol.workers import run_trials
from fastzsl.report.environment import environment
from fastzsl.report.tables import print_table
from fastzsl.training.inputs import check_names, load_features
from fastzsl.training.settings import Settings as RunSettings

DESCRIPTION = """Repeat the paper's experiments: train the full model, its ablations and its competitors with several
seeds, choose gamma on held-out seen classes, and print Tables 1 and 2 together with the paper's published rows.

Without any data: --datasets shapes. The benchmarks: --datasets awa1 awa2 cub sun --root DIR. Your own images:
--datasets folder --root DIR. Every method: --methods all. Tables (Markdown, CSV, LaTeX), figures and report.html are
written to --out. A run that was stopped continues where it was.
"""


@dataclass(frozen=True)
class Settings:
    """What to run.

    Args:
        datasets: any of shapes, folder, awa1, awa2, cub, sun, apy, flo.
        root: folder of the data; for "folder" itself, for the benchmarks the one that holds them.
        features: folder with NAME.h5 for each benchmark, feature maps as `python -m fastzsl.extract` makes
            them; default: the pooled features of res101.mat, with a single region for each image, so that
            attention has no effect.
        out: output folder.
        seeds: number of repetitions. On shapes each has its own classes and images.
        first_seed: seed of the first repetition.
        splits: "fixed" keeps a data set's own split, "random" draws other unseen classes with every seed.
        methods: "all", names of methods, or the paper's model without a part (no-sr, no-ma, decoupled); the
            full model is always trained.
        search: number of settings to try for each row on held-out seen classes; 0 uses the defaults, and the recipe
            that `python -m fastzsl.train` would choose.
        budget: use every method's documented cheap settings, and start no row after this time (30m, 2h); the table
            names the rows that were left out.
        distractors: also measure T1 for these numbers of distractor objects, with attention and with pooling
            (shapes only).
        sweep: also measure H on held-out seen classes for several alpha and eta, with the first seed.
        config: settings from a run's config.yaml.
        set: settings as NAME=VALUE, after those of --config.
        workers: number of trainings at the same time; 0 is one per core.
    """

    datasets: tuple[str, ...] = ("shapes",)
    root: Path | None = None
    features: Path | None = None
    out: Path = Path("runs/reproduce")
    seeds: int = 3
    first_seed: int = 0
    splits: Literal["fixed", "random"] = "fixed"
    methods: tuple[str, ...] = tuple(e.name for e in ABLATIONS)
    search: int = 0
    budget: str | None = None
    distractors: tuple[int, ...] = ()
    sweep: bool = True
    config: Path | None = None
    set: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UserError("--datasets needs at least one data set")
        if not 1 <= self.seeds <= 10_000:
            raise UserError(f"--seeds is {self.seeds}; wanted 1 to 10000")
        if not 0 <= self.first_seed <= 2**31 - 1 - self.seeds:
            raise UserError(f"--first-seed is {self.first_seed}; wanted 0 or more, below 2^31")
        if not 0 <= self.workers <= 1024:
            raise UserError(f"--workers is {self.workers}; wanted 0 to 1024")
        if not 0 <= self.search <= 100_000:
            raise UserError(f"--search is {self.search}; wanted 0 or more")
        self.seconds()  # so that a wrong --budget is reported at once

    def seconds(self) -> float:
        """The budget in seconds, infinite if there is none.

        Raises:
            UserError: not a time.
        """
        if self.budget is None:
            return float("inf")
        match = re.fullmatch(r"(\d{1,6})\s*([smh]?)", self.budget.strip())
        if not match or not int(match[1]):
            raise UserError(f"--budget is {self.budget}; wanted a time such as 30m, 2h or 900s")
        return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def reproduce(settings: Settings, console: Console | None = None) -> Experiment:
    """Run the experiments and write tables, figures and report to `settings.out`.

    Raises:
        UserError: anything wrong with the input.
    """
    console = console or open_console()
    base = base_settings(settings.config, None, settings.set)
    sources = [(n, data_settings(base, n, settings.root, settings.features)) for n in settings.datasets]
    entries = find_entries(settings.methods)
    if settings.distractors and "shapes" not in settings.datasets:
        raise UserError("--distractors: only shapes has them; add it to --datasets")
    if settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"--out {settings.out} is a file; wanted a folder")
    for _, source in sources:
        check_names(source)
    settings.out.mkdir(parents=True, exist_ok=True)
    table = TrialTable(settings.out / "trials")
    with progress_bars(console) as progress:
        loader = _DataSets(base, progress)
        trainings, left_out = _train(settings, sources, entries, loader, table, progress)
        curve = _distractors(settings, sources, loader, table, progress)
        sweeps = _sweeps(settings, sources, loader, table, progress)
    experiment = collect(trainings, table)
    tables = [t for t in (table_1(experiment), table_2(experiment), differences(experiment)) if t.rows]
    tables += [method_table(experiment, name, table, left_out) for name in experiment.datasets]
    attention = attention_table(experiment)
    tables += [attention] if attention else []
    for made in tables:
        made.save(settings.out)
        print_table(made, console)
    _save_results(experiment, settings, base, left_out)
    first = {n: loader.load(seeded(s, settings.first_seed, settings.splits == "random")) for n, s in sources}
    report = write_experiment_report(
        settings.out,
        experiment,
        tables,
        table,
        first,
        curve=curve,
        sweeps={name: sweep_rows(trials, table) for name, trials in sweeps.items()},
        configuration={**base.decisive(), **{k: str(v) for k, v in vars(settings).items() if k != "set"}},
        environment=environment(),
    )
    console.print(f"tables, figures and report: {report.parent}")
    return experiment


class _DataSets:
    """Data sets with their features; the last few are kept in memory."""

    def __init__(self, base: RunSettings, progress: ProgressBars) -> None:
        self._device = Fabric(accelerator=base.run.accelerator, devices=1).device
        self._progress = progress
        self._kept: dict[object, ZeroShotDataset] = {}

    def load(self, settings: RunSettings) -> ZeroShotDataset:
        key = (settings.data, settings.features)
        if key not in self._kept:
            while len(self._kept) > 3:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = load_features(settings.data, settings.features, self._device, self._progress)
        return self._kept[key]


def _train(
    settings: Settings,
    sources: list[tuple[str, RunSettings]],
    entries: list[Entry],
    loader: _DataSets,
    table: TrialTable,
    progress: ProgressBars,
) -> tuple[list[Training], dict[str, dict[str, str]]]:
    """Train every row, the full model first; returns the trainings and, by data set, what was left out."""
    started, trainings = time.monotonic(), []
    left_out: dict[str, dict[str, str]] = {}
    ordered = [FULL, *(e for e in entries if e.name != FULL.name)]
    for name, source in sources:
        for entry in ordered:
            if time.monotonic() - started > settings.seconds():
                left_out.setdefault(name, {})[entry.label] = "out of time"
                continue
            try:
                own = _plan_entry(settings, name, source, entry, loader, table, progress)
                run_trials(
                    trials_of(own),
                    table,
                    workers=settings.workers,
                    progress=progress,
                    label=f"{name}, {entry.name}",
                )
            except UserError as error:
                if entry.name == FULL.name:
                    raise
                left_out.setdefault(name, {})[entry.label] = str(error)
                progress.console.print(f"{name}, {entry.name} is left out: {error}")
                continue
            trainings += own
    order = {e.name: i for i, e in enumerate(entries)}
    return sorted(trainings, key=lambda t: order[t.entry.name]), left_out


def _plan_entry(
    settings: Settings,
    name: str,
    source: RunSettings,
    entry: Entry,
    loader: _DataSets,
    table: TrialTable,
    progress: ProgressBars,
) -> list[Training]:
    """The entry's trainings, its settings chosen once for every data set that differs in its classes."""
    planned: list[Training] = []
    chosen: dict[str, Selection] = {}
    for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
        own = seeded(entry.configure(source, settings.budget is not None), seed, settings.splits == "random")
        own = own.with_recipe()
        data = loader.load(own)
        label = f"{name}-{entry.name}-{seed}"
        found: Selection | None
        if not settings.search:
            found = choose_recipe(
                own, data, table, workers=settings.workers, progress=progress, label=f"{label}, recipes"
            )
        elif data.identity() not in chosen:
            found = chosen[data.identity()] = search_entry(
                entry, own, data, table, limit=settings.search, workers=settings.workers,
                progress=progress, label=label, out=settings.out,
            )  # fmt: skip
        else:
            found = chosen[data.identity()]
        tried = len(found.points) if found else 1
        own = replace(own, method=found.settings.method) if found else own
        planned.append(plan(name, entry, own, data, tried))
    return planned


def _distractors(
    settings: Settings,
    sources: list[tuple[str, RunSettings]],
    loader: _DataSets,
    table: TrialTable,
    progress: ProgressBars,
) -> Experiment | None:
    """Attention and pooling on `shapes` with other numbers of distractors; T1 needs no gamma."""
    if not settings.distractors:
        return None
    source = next(s for name, s in sources if name == "shapes")
    compared = [e for e in ABLATIONS if e.name in (FULL.name, "pooled")]
    curve = []
    for count in settings.distractors:
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
            for entry in compared:
                own = seeded(
                    entry.configure(source.changed(distractors=count, gamma_folds=0)), seed, False
                ).with_recipe()
                curve.append(plan(str(count), entry, own, loader.load(own)))
    run_trials(
        trials_of(curve), table, workers=settings.workers, progress=progress, label="distractors",
        keep_models=False,
    )  # fmt: skip
    return collect(curve, table)


def _sweeps(
    settings: Settings,
    sources: list[tuple[str, RunSettings]],
    loader: _DataSets,
    table: TrialTable,
    progress: ProgressBars,
) -> dict[str, SweepTrials]:
    """Data set -> trials of the full model against alpha and eta."""
    swept: dict[str, SweepTrials] = {}
    for name, source in sources:
        if not settings.sweep or settings.budget or not source.protocol.gamma_folds or not is_family(source):
            continue
        own = seeded(source, settings.first_seed, settings.splits == "random")
        swept[name] = sweep_trials(own, loader.load(own))
        trials: list[Trial] = [t for values in swept[name].values() for some in values.values() for t in some]
        label = f"alpha and eta, {name}"
        run_trials(trials, table, workers=settings.workers, progress=progress, label=label)
    return swept


def _save_results(
    experiment: Experiment, settings: Settings, base: RunSettings, left_out: dict[str, dict[str, str]]
) -> None:
    """results.json: every figure of every training, and the data on which each value was chosen."""
    rows = [
        {
            "dataset": r.training.dataset,
            "method": r.training.entry.name,
            "seed": r.training.seed,
            "trial": r.training.trial.key,
            "settings": r.training.settings.method.settings(),
            "settings_tried": r.training.tried,
        }
        | r.results.as_dict()
        | r.trial_result.diagnostics
        for r in experiment.finished
    ]
    folds = base.protocol.gamma_folds
    searched = (
        f"up to {settings.search} settings a row on three folds of the seen classes, training images only"
    )
    chosen = {
        "gamma": f"{folds} problems of held-out seen classes, training images only",
        "settings of the rows": searched
        if settings.search
        else "defaults, and the recipe chosen on the problems that choose gamma; no test image",
    }
    record = {
        "chosen_on": chosen, "settings": base.as_dict(), "left_out": left_out, "trainings": rows,
    }  # fmt: skip
    write_text_atomically(settings.out / "results.json", json.dumps(record, indent=1) + "\n")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    reproduce(parse(Settings, arguments, "python -m fastzsl.reproduce", DESCRIPTION))


if __name__ == "__main__":
    main()
