"""`python -m fastzsl.reproduce`: the paper's experiments on any data set, its tables beside new ones."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_type_hints

import yaml
from lightning_fabric import Fabric
from rich.console import Console

from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse, progress_bars
from fastzsl.data.formats.xlsa17 import KNOWN
from fastzsl.errors import UserError, nearest
from fastzsl.experiments.campaign import Campaign, Cell, collect, make_cell, make_cells, seeded, trials_of
from fastzsl.experiments.report import write_experiment_report
from fastzsl.experiments.sweep import sweep_rows, sweep_trials
from fastzsl.experiments.tables import attention_table, differences, table_1, table_2
from fastzsl.experiments.variants import FULL, VARIANTS, find_variants
from fastzsl.files.atomic import write_text_atomically
from fastzsl.info import gather
from fastzsl.protocol.trials import TrialTable, run_trials
from fastzsl.report.tables import print_table
from fastzsl.training.config import Config, load_config
from fastzsl.training.inputs import prepare
from fastzsl.training.values import plain_value

DESCRIPTION = """Repeat the paper's experiments: train the full model and its ablations with several
seeds, choose gamma on held-out seen classes, and print Tables 1 and 2 with the paper's own rows beside them.

With no data at all: --datasets shapes. The benchmarks: --datasets awa1 awa2 cub sun --root DIR. Your own
pictures: --datasets folder --root DIR. Tables (Markdown, CSV, LaTeX), figures and report.html are left in
--out. A run that was stopped goes on where it was.
"""


@dataclass(frozen=True)
class Settings:
    """What to run.

    Args:
        datasets: any of shapes, folder, awa1, awa2, cub, sun, apy, flo.
        root: folder of the data; for "folder" itself, for the benchmarks the one that holds them.
        features: folder with NAME.h5 for each benchmark, feature maps as `python -m fastzsl.extract` makes
            them; without it they are the pooled features of res101.mat, on which attention has nothing to
            choose from.
        out: where everything is left.
        seeds: repetitions. On shapes each has classes and pictures of its own.
        first_seed: of the repetitions.
        splits: "fixed" keeps a data set's own split, "random" draws other unseen classes with every seed.
        variants: any of no-sr, no-ma, decoupled, average; the full model is always trained.
        distractors: also T1 over these numbers of distractor objects, attention against pooling (shapes
            only).
        sweep: also H on held-out seen classes against alpha and eta, with the first seed.
        config: settings from a run's config.yaml.
        set: settings as NAME=VALUE, after those of --config.
        workers: trainings side by side; 0 is one a core.
    """

    datasets: tuple[str, ...] = ("shapes",)
    root: Path | None = None
    features: Path | None = None
    out: Path = Path("runs/reproduce")
    seeds: int = 3
    first_seed: int = 0
    splits: Literal["fixed", "random"] = "fixed"
    variants: tuple[str, ...] = tuple(v.name for v in VARIANTS)
    distractors: tuple[int, ...] = ()
    sweep: bool = True
    config: Path | None = None
    set: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UserError(f"--seeds is {self.seeds}; wanted 1 or more")
        if self.workers < 0:
            raise UserError(f"--workers is {self.workers}; wanted 0 or more")


def reproduce(settings: Settings, console: Console | None = None) -> Campaign:
    """Run the experiments and leave tables, figures and report in `settings.out`.

    Raises:
        UserError: anything in the input that the user can mend.
    """
    console = console or Console()
    base = base_config(settings.config, settings.set)
    sources = [(name, source_config(base, name, settings)) for name in settings.datasets]
    variants = find_variants(settings.variants)
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    cells = make_cells(sources, variants, seeds, settings.splits == "random")
    curve = _distractor_cells(sources, settings, seeds)
    swept = {
        name: sweep_trials(seeded(config, settings.first_seed, settings.splits == "random"))
        for name, config in sources
        if settings.sweep and base.gamma_folds
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    table = TrialTable(settings.out / "trials")
    with progress_bars(console) as progress:
        device = Fabric(accelerator=base.accelerator, devices=1).device
        for config in {_source(c.trial.config): c.trial.config for c in (*cells, *curve)}.values():
            prepare(config, device, progress)  # features are extracted once, before processes ask for them
        run_trials(trials_of(cells), table, workers=settings.workers, progress=progress)
        if curve:
            run_trials(
                trials_of(curve), table, workers=settings.workers, progress=progress, label="distractors",
                keep_models=False,
            )  # fmt: skip
        for name, trials in swept.items():
            run_trials(
                [t for per_value in trials.values() for folds in per_value.values() for t in folds], table,
                workers=settings.workers, progress=progress, label=f"alpha and eta, {name}",
            )  # fmt: skip
    campaign = collect(cells, table)
    tables = [t for t in (table_1(campaign), table_2(campaign), differences(campaign)) if t.rows]
    attention = attention_table(campaign)
    tables += [attention] if attention else []
    for made in tables:
        made.save(settings.out)
        print_table(made, console)
    save_results(campaign, settings.out / "results.json", base)
    report = write_experiment_report(
        settings.out,
        campaign,
        tables,
        table,
        curve=collect(curve, table) if curve else None,
        sweeps={name: sweep_rows(trials, table) for name, trials in swept.items()},
        configuration={**base.as_dict(), **{k: str(v) for k, v in vars(settings).items() if k != "set"}},
        environment=gather(),
    )
    console.print(f"tables, figures and report: {report.parent}", highlight=False)
    return campaign


def base_config(file: Path | None, assignments: tuple[str, ...]) -> Config:
    """The configuration that all variants start from: defaults, a file, and NAME=VALUE on top.

    Raises:
        UserError: an unknown setting, or a value that is none.
    """
    config = load_config(file) if file else Config()
    changes: dict[str, Any] = {}
    types = get_type_hints(Config)
    for item in assignments:
        name, sign, value = item.partition("=")
        if not sign or name not in vars(config):
            raise UserError(f"--set {item}: wanted NAME=VALUE{nearest(name, list(vars(config)))}")
        if name in ("root", "images", "features", "out"):
            raise UserError(f"--set {item}: give --{name} itself")
        try:
            changes[name] = plain_value(yaml.safe_load(value), types[name], f"--set {name}")
        except yaml.YAMLError:
            raise UserError(f"--set {item}: not a value") from None
    return replace(config, out=None, resume=False, **changes)


class Whereabouts(Protocol):
    """Where the data are: the part of an entry point's settings that `source_config` reads."""

    @property
    def root(self) -> Path | None: ...

    @property
    def features(self) -> Path | None: ...


def source_config(base: Config, name: str, settings: Whereabouts) -> Config:
    """The configuration for one data set.

    Raises:
        UserError: no such data set, or no root for one that needs it.
    """
    known = list(typing.get_args(typing.get_type_hints(Config)["dataset"]))
    if name not in known:
        raise UserError(f"--datasets: there is no {name}{nearest(name, known)} (known: {', '.join(known)})")
    root = None if name == "shapes" else settings.root
    features = settings.features / f"{name}.h5" if settings.features and name in KNOWN else base.features
    return replace(base, dataset=name, root=root, features=features)  # type: ignore[arg-type]


def _source(config: Config) -> tuple[Any, ...]:
    return (config.dataset, config.root, config.features, config.distractors, config.data_seed)


def _distractor_cells(sources: list[tuple[str, Config]], settings: Settings, seeds: range) -> list[Cell]:
    """Attention and pooling on `shapes` with other numbers of distractors; T1 needs no gamma."""
    if not settings.distractors:
        return []
    config = next((c for name, c in sources if name == "shapes"), None)
    if config is None:
        raise UserError("--distractors: only shapes has them; add it to --datasets")
    compared = [v for v in VARIANTS if v.name in (FULL.name, "average")]
    return [
        make_cell(str(count), variant, seeded(replace(config, distractors=count, gamma_folds=0), seed, False))
        for count in settings.distractors
        for seed in seeds
        for variant in compared
    ]


def save_results(campaign: Campaign, path: Path, base: Config) -> None:
    """results.json: every figure of every training, and what was chosen on what."""
    rows = [
        {
            "dataset": m.cell.dataset,
            "variant": m.cell.variant.name,
            "seed": m.cell.seed,
            "trial": m.cell.trial.key,
        }
        | m.results.as_dict()
        | m.outcome.facts
        for m in campaign.measured
    ]
    chosen = {
        "gamma": f"{base.gamma_folds} problems of held-out seen classes, training pictures only",
        "everything else": "the configuration below; nothing was chosen on test pictures",
    }
    text = json.dumps({"chosen_on": chosen, "settings": base.as_dict(), "trainings": rows}, indent=1)
    write_text_atomically(path, text + "\n")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    reproduce(parse(Settings, arguments, "python -m fastzsl.reproduce", DESCRIPTION))


if __name__ == "__main__":
    main()
