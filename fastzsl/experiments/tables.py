"""Tables that are printed, and written as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastzsl.experiments.campaign import Campaign
from fastzsl.experiments.statistics import mean_and_sd, paired_difference
from fastzsl.experiments.variants import FULL, NO_CALIBRATION
from fastzsl.protocol.published import TABLE_1, TABLE_2, TITLES
from fastzsl.training.checkpoint import write_text_atomically

PUBLISHED = "published"
MEASURED = "measured here"


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption.

    Attributes:
        name: of its files.
        caption: a sentence or two.
        header: names of the columns.
        rows: cells as text.
        marked: indices of rows that are the paper's, not ours.
    """

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    marked: frozenset[int] = frozenset()

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.header) + " |", "|---|" + "---:|" * (len(self.header) - 1)]
        lines += ["| " + " | ".join(_markdown(c) for c in row) + " |" for row in self.rows]
        return f"{self.caption}\n\n" + "\n".join(lines) + "\n"

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return text.getvalue()

    def latex(self) -> str:
        columns = "l" + "r" * (len(self.header) - 1)
        body = [" & ".join(_latex(c) for c in row) + r" \\" for row in (self.header, *self.rows)]
        return "\n".join(
            [
                r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.caption)}}}",
                rf"\begin{{tabular}}{{{columns}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline",
                r"\end{tabular}", r"\end{table}", "",
            ]
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """`<name>.md`, `<name>.csv` and `<name>.tex`."""
        for ending, text in (("md", self.markdown()), ("csv", self.csv()), ("tex", self.latex())):
            write_text_atomically(folder / f"{self.name}.{ending}", text)


def _markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _latex(cell: str) -> str:
    for mark, safe in (
        ("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("$", r"\$"),
        ("{", r"\{"), ("}", r"\}"), ("±", r"$\pm$"), ("→", r"$\to$"), ("−", r"$-$"), ("×", r"$\times$"),
    ):  # fmt: skip
        cell = cell.replace(mark, safe) if mark != "\\" else cell.replace("\\", "")
    return cell


def percent(values: Sequence[float]) -> str:
    """`70.1 ± 2.3` from fractions; a dash for none."""
    if not values:
        return "-"
    mean, sd = mean_and_sd(values)
    return f"{100 * mean:.1f}" + ("" if math.isnan(sd) else f" ± {100 * sd:.1f}")


def table_1(campaign: Campaign) -> Table:
    """The paper's Table 1: T1 on every data set, the published rows first."""
    datasets = campaign.datasets
    rows = [
        [method, PUBLISHED, *(_one(cells.get(d, (None,))[0]) for d in datasets)]
        for method, cells in TABLE_1.items()
        if any(d in cells for d in datasets)
    ]
    marked = frozenset(range(len(rows)))
    rows += [
        [v.label, MEASURED, *(percent(campaign.figures(d, v.name, "T1")) for d in datasets)]
        for v in campaign.variants
    ]
    caption = (
        "Table 1: average top-1 accuracy (%) per class in the conventional setting, "
        f"{_seeds(campaign)}; mean ± standard deviation."
    )
    return Table("table1", caption, ["method", "source", *map(title, datasets)], rows, marked)


def table_2(campaign: Campaign) -> Table:
    """The paper's Table 2: S→T, U→T and H on every data set, the published rows first."""
    datasets = campaign.datasets
    nothing = (None, None, None)
    rows = [
        [method, PUBLISHED, *(_one(value) for d in datasets for value in cells.get(d, nothing))]
        for method, cells in TABLE_2.items()
        if any(d in cells for d in datasets)
    ]
    marked = frozenset(range(len(rows)))

    def row(label: str, variant: str, names: Sequence[str]) -> list[str]:
        return [
            label, MEASURED, *(percent(campaign.figures(d, variant, n)) for d in datasets for n in names)
        ]  # fmt: skip

    for v in campaign.variants:
        if v.name == FULL.name:
            rows.append(row(NO_CALIBRATION, v.name, ("S0", "U0", "H0")))
        rows.append(row(v.label, v.name, ("S", "U", "H")))
    header = ["method", "source", *(f"{title(d)} {n}" for d in datasets for n in ("S→T", "U→T", "H"))]
    caption = (
        "Table 2: average top-1 accuracy (%) per class in the generalised setting, gamma chosen on held-out "
        f"seen classes, {_seeds(campaign)}; mean ± standard deviation."
    )
    return Table("table2", caption, header, rows, marked)


def differences(campaign: Campaign) -> Table:
    """The full model against each variant: paired differences in points with their 95% interval."""
    rows = []
    for dataset in campaign.datasets:
        for v in campaign.variants:
            if v.name == FULL.name:
                pairs = [("H", "H", "H0")]
                label, claim = NO_CALIBRATION, "gamma (equation 9) helps"
            else:
                pairs = [(n, n, n) for n in ("T1", "H", "AUSUC")]
                label, claim = v.label, v.claim
            for shown, first, second in pairs:
                d = paired_difference(
                    campaign.figures(dataset, FULL.name, first), campaign.figures(dataset, v.name, second)
                )
                interval = "" if math.isnan(d.low) else f"{100 * d.low:+.1f} to {100 * d.high:+.1f}"
                verdict = "yes" if d.low > 0 else "the opposite" if d.high < 0 else "not shown"
                rows.append(
                    [title(dataset), label, shown, f"{100 * d.mean:+.1f}", interval,
                     "" if math.isnan(d.p) else f"{d.p:.3f}", f"{d.wins}/{d.n}", claim, verdict]
                )  # fmt: skip
    header = [
        "data set", "without the part", "figure", "full model is better by", "95% interval", "p", "wins",
        "the paper's claim", "holds",
    ]  # fmt: skip
    caption = (
        f"The full model minus each variant, in percentage points, paired over {_seeds(campaign)} "
        "(Student's t)."
    )
    return Table("differences", caption, header, rows)


def attention_table(campaign: Campaign) -> Table | None:
    """Where the attention looks, and how far the classes' attention differs (the claim behind equation 5)."""
    rows = []
    for dataset in campaign.datasets:
        for v in campaign.variants:
            overlap = campaign.figures(dataset, v.name, "attention_overlap")
            if not overlap:
                continue
            hits = campaign.figures(dataset, v.name, "attention_on_object")
            chance = campaign.figures(dataset, v.name, "attention_chance")
            entropy = campaign.figures(dataset, v.name, "attention_entropy")
            rows.append(
                [title(dataset), v.label, percent(overlap), percent(entropy), percent(hits), percent(chance)]
            )
    if not rows:
        return None
    header = ["data set", "method", "overlap", "entropy", "maximum on the object", "chance"]
    caption = (
        "Attention over unseen pictures (%). Overlap: of the true class's map with another unseen class's, "
        "100 where they agree. Entropy: 100 is uniform. Maximum on the object: where its mask is known."
    )
    return Table("attention", caption, header, rows)


def title(dataset: str) -> str:
    return TITLES.get(dataset, dataset)


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _seeds(campaign: Campaign) -> str:
    count = len({m.cell.seed for m in campaign.measured})
    return f"{count} seed" + ("s" if count != 1 else "")
