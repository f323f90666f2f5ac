"""One table with a row for each method: measured and published figures, difference to the best, and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fastzsl.experiments.experiment import Experiment
from fastzsl.experiments.statistics import mean_and_sd, paired_difference
from fastzsl.experiments.tables import percent, title
from fastzsl.protocol.published import published
from fastzsl.protocol.trials import TrialTable
from fastzsl.report.tables import Table

HEADER = [
    "method", "reads in training", "T1", "published T1", "below the best T1 by", "U", "S", "H", "H, no gamma",
    "published H", "published in", "AUSUC", "settings tried", "training (s)", "seconds per 1000 test images",
]  # fmt: skip
NARROW = ("method", "T1", "H", "AUSUC", "training (s)")


def method_table(
    experiment: Experiment, dataset: str, table: TrialTable, left_out: Mapping[str, Mapping[str, str]]
) -> Table:
    """Every entry on one data set, the best T1 first.

    Args:
        left_out: data set -> rows that were not run because the time was over.
    """
    names = [e.name for e in experiment.entries if experiment.of(dataset, e.name)]
    T1 = {name: experiment.figures(dataset, name, "T1") for name in names}
    ordered = sorted(names, key=lambda name: -mean_and_sd(T1[name])[0])
    rows = [_row(experiment, dataset, name, T1[name], T1[ordered[0]]) for name in ordered]
    rows += [
        [label, f"not run: {why}", *[""] * (len(HEADER) - 2)]
        for label, why in left_out.get(dataset, {}).items()
    ]
    count = len(T1[ordered[0]])
    caption = (
        f"{title(dataset)}: all methods on the same features and splits, {count} seed{'s' if count != 1 else ''}, "
        "mean ± standard deviation in %. U, S, H with gamma chosen on held-out seen classes, the published H without "
        "calibration except for Ours. Published figures are on other features, those of FLO on all 102 "
        "classes; the paper exchanges f-CLSWGAN's of AwA1 and AwA2, which is put right here. "
        "Difference: paired over the seeds, with its 95% interval. Times: one CPU thread a training."
    )
    return Table(f"methods-{dataset}", caption, HEADER, rows, narrow=NARROW)


def _row(
    experiment: Experiment, dataset: str, name: str, T1: Sequence[float], best: Sequence[float]
) -> list[str]:
    first = experiment.of(dataset, name)[0]
    entry, method = first.training.entry, first.training.settings.method
    figures = {n: percent(experiment.figures(dataset, name, n)) for n in ("U", "S", "H", "H0")}
    area = mean_and_sd(experiment.figures(dataset, name, "AUSUC"))[0]
    known = published(entry.label, dataset)
    reads = f"{method.reads}, {'all' if method.descriptions == 'all' else 'seen'} descriptions"
    return [
        entry.label, reads, percent(T1), _one(known.T1), _difference(best, T1),
        figures["U"], figures["S"], figures["H"], figures["H0"],
        _one(known.H), known.source or "-", f"{area:.3f}", str(first.training.tried),
        _seconds(experiment.figures(dataset, name, "fit_seconds")),
        _seconds(experiment.figures(dataset, name, "score_seconds_per_1000")),
    ]  # fmt: skip


def _difference(best: Sequence[float], own: Sequence[float]) -> str:
    d = paired_difference(best, own)
    if d.mean == 0:
        return "-"
    interval = "" if math.isnan(d.low) else f" ({100 * d.low:.1f} to {100 * d.high:.1f})"
    return f"{100 * d.mean:.1f}{interval}"


def _seconds(values: Sequence[float]) -> str:
    return f"{mean_and_sd(values)[0]:.2f}" if values else "-"


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
