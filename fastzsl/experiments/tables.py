"""Tables that are printed, and written as Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastzsl.experiments.entries import FULL, NO_CALIBRATION, Entry
from fastzsl.experiments.experiment import Experiment
from fastzsl.experiments.statistics import mean_and_sd, paired_difference
from fastzsl.protocol.published import TABLE_1, TABLE_1_NOTE, TABLE_2, TABLE_2_NOTE, TITLES
from fastzsl.report.tables import Table

PUBLISHED = "published"
MEASURED = "measured here"


def percent(values: Sequence[float]) -> str:
    """`70.1 ± 2.3` from fractions; a dash for none."""
    if not values:
        return "-"
    mean, sd = mean_and_sd(values)
    return f"{100 * mean:.1f}" + ("" if math.isnan(sd) else f" ± {100 * sd:.1f}")


def table_1(experiment: Experiment) -> Table:
    """The paper's Table 1: T1 on every data set, the published rows first."""
    datasets = experiment.datasets
    rows = [
        [method, PUBLISHED, *(_one(cells.get(d, (None,))[0]) for d in datasets)]
        for method, cells in TABLE_1.items()
        if any(d in cells for d in datasets)
    ]
    marked = frozenset(range(len(rows)))
    rows += [
        [v.label, MEASURED, *(percent(experiment.figures(d, v.name, "T1")) for d in datasets)]
        for v in experiment.entries
    ]
    caption = (
        "Table 1: average top-1 accuracy (%) per class in the conventional setting, "
        f"{_seeds(experiment)}; mean ± standard deviation."
    ) + (f" {TABLE_1_NOTE}" if marked else "")
    return Table("table1", caption, ["method", "source", *map(title, datasets)], rows, marked)


def table_2(experiment: Experiment) -> Table:
    """The paper's Table 2: S→T, U→T and H on every data set, the published rows first."""
    datasets = experiment.datasets
    nothing = (None, None, None)
    rows = [
        [method, PUBLISHED, *(_one(value) for d in datasets for value in cells.get(d, nothing))]
        for method, cells in TABLE_2.items()
        if any(d in cells for d in datasets)
    ]
    marked = frozenset(range(len(rows)))

    def row(label: str, entry: str, names: Sequence[str]) -> list[str]:
        return [
            label, MEASURED, *(percent(experiment.figures(d, entry, n)) for d in datasets for n in names)
        ]  # fmt: skip

    for v in experiment.entries:
        if v.name == FULL.name:
            rows.append(row(NO_CALIBRATION, v.name, ("S0", "U0", "H0")))
        rows.append(row(v.label, v.name, ("S", "U", "H")))
    header = ["method", "source", *(f"{title(d)} {n}" for d in datasets for n in ("S→T", "U→T", "H"))]
    caption = (
        "Table 2: average top-1 accuracy (%) per class in the generalised setting, gamma chosen on held-out "
        f"seen classes, {_seeds(experiment)}; mean ± standard deviation."
    ) + (f" {TABLE_2_NOTE}" if marked else "")
    return Table("table2", caption, header, rows, marked)


def differences(experiment: Experiment) -> Table:
    """The full model against itself without a part: paired differences in points with their 95% interval.

    Other methods are compared in `method_table`.
    """
    rows = []
    for dataset in experiment.datasets:
        for v in parts_of_the_model(experiment):
            if v.name == FULL.name:
                pairs = [("H", "H", "H0")]
                label, claim = NO_CALIBRATION, "gamma (equation 9) helps"
            else:
                pairs = [(n, n, n) for n in ("T1", "H", "AUSUC")]
                label, claim = v.label, v.claim
            for shown, first, second in pairs:
                d = paired_difference(
                    experiment.figures(dataset, FULL.name, first), experiment.figures(dataset, v.name, second)
                )
                interval = "" if math.isnan(d.low) else f"{100 * d.low:+.1f} to {100 * d.high:+.1f}"
                verdict = "yes" if d.low > 0 else "the opposite" if d.high < 0 else "not shown"
                p = "" if math.isnan(d.p) else "<0.001" if d.p < 0.001 else f"{d.p:.3f}"
                rows.append(
                    [title(dataset), label, shown, f"{100 * d.mean:+.1f}", interval,
                     p, f"{d.wins}/{d.n}", claim, verdict]
                )  # fmt: skip
    header = [
        "data set", "without the part", "figure", "full model is better by", "95% interval", "p", "wins",
        "the paper's claim", "holds",
    ]  # fmt: skip
    caption = (
        f"The full model minus the model without a part, in percentage points, paired over {_seeds(experiment)} "
        "(Student's t)."
    )
    narrow = ("data set", "without the part", "figure", "full model is better by", "95% interval", "holds")
    return Table("differences", caption, header, rows, narrow=narrow)


def parts_of_the_model(experiment: Experiment) -> list[Entry]:
    """The full model and its ablations, each of which stands for a claim of the paper."""
    return [e for e in experiment.entries if e.claim or e.name == FULL.name]


def attention_table(experiment: Experiment) -> Table | None:
    """Where the attention is, and how much it differs between classes (the claim behind equation 5)."""
    rows = []
    for dataset in experiment.datasets:
        for v in experiment.entries:
            overlap = experiment.figures(dataset, v.name, "attention_overlap")
            if not overlap:
                continue
            hits = experiment.figures(dataset, v.name, "attention_on_object")
            chance = experiment.figures(dataset, v.name, "attention_chance")
            entropy = experiment.figures(dataset, v.name, "attention_entropy")
            rows.append(
                [title(dataset), v.label, percent(overlap), percent(entropy), percent(hits), percent(chance)]
            )
    if not rows:
        return None
    header = ["data set", "method", "overlap", "entropy", "maximum on the object", "chance"]
    caption = (
        "Attention over unseen images (%). Overlap: of the true class's map with another unseen class's, "
        "100 where they agree. Entropy: 100 is uniform. Maximum on the object: where its mask is known."
    )
    return Table("attention", caption, header, rows)


def title(dataset: str) -> str:
    return TITLES.get(dataset, dataset)


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seeds(experiment: Experiment) -> str:
    count = len({r.training.seed for r in experiment.finished})
    return f"{count} seed" + ("s" if count != 1 else "")
