"""Self-contained HTML reports: one file, no script, no request, to be sent to a colleague."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure as Plot

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.files.atomic import write_text_atomically
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.protocol.metrics import Results, TestScores
from fastzsl.protocol.scoring import Localisation
from fastzsl.report import experiment_figures as figures
from fastzsl.report.gallery import Exhibit, gallery
from fastzsl.report.tables import Table
from fastzsl.training.config import Config
from fastzsl.training.run import RunFolder

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("fastzsl.report"),
    autoescape=True,  # class names come from users' files
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Chart:
    """A figure with its words.

    Attributes:
        heading, text: what it shows and how to read it.
        uri: the picture as a data URI.
    """

    heading: str
    text: str
    uri: str


def chart(heading: str, text: str, plot: Plot | None) -> list[Chart]:
    """A list of one chart, or of none, so that missing ones vanish when lists are added."""
    if plot is None:
        return []
    picture = base64.b64encode(figures.svg(plot).encode()).decode()
    return [Chart(heading, text, f"data:image/svg+xml;base64,{picture}")]


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, words, tables, charts, pictures; whatever is empty is left out."""

    heading: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    exhibits: list[Exhibit] = field(default_factory=list)


def write_report(
    path: Path,
    title: str,
    summary: list[str],
    sections: list[Section],
    configuration: dict[str, Any],
    environment: dict[str, dict[str, str]],
) -> None:
    """Fill the template.

    Args:
        path: of the HTML file.
        title: the first line.
        summary: sentences that a person who does not know the code understands.
        sections: in their order.
        configuration, environment: shown at the end, folded.
    """
    text = _templates.get_template("report.html.j2").render(
        title=title,
        summary=summary,
        sections=sections,
        configuration=configuration,
        environment=environment,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text_atomically(path, text)


def write_run_report(
    run: RunFolder,
    model: AttendedAutoencoder,
    data: ZeroShotDataset,
    config: Config,
    scores: TestScores,
    results: Results,
    where: Localisation | None,
    chosen_on: dict[str, str],
    environment: dict[str, dict[str, str]],
) -> Path:
    """report.html of one run.

    Args:
        run: the run folder, with metrics.jsonl.
        model, data, config: of the run.
        scores, results: of its test pictures.
        where: the attention against the objects' masks, where they are known.
        chosen_on: what was chosen on what, in words.
        environment: `fastzsl.info.gather()`.

    Returns:
        The path of the report.
    """
    sections = [
        Section("Results", tables=[results_table(results, where, data)]),
        Section(
            "Where the attention looks",
            "Pictures of classes that the model never saw in training. Bright is where the attention of a "
            "class looks: "
            "of the picture's own class (green) and of the three other unseen classes with the highest "
            "scores. "
            "A white outline is the object, where it is known.",
            exhibits=gallery(model, data, scores),
        ),
        Section(
            "Curves",
            charts=[
                *chart(
                    "Balance of seen and unseen classes",
                    "gamma is added to the scores of unseen classes, because a model prefers what it was "
                    "trained on. "
                    "It was chosen without any test picture; the curves show what every other choice "
                    "would have given.",
                    figures.gamma_curve(scores, results.gamma),
                ),
                *chart(
                    "Accuracy on seen classes over accuracy on unseen ones",
                    "Every gamma is a point of the curve. The area under it judges the model without any "
                    "choice of gamma.",
                    figures.seen_unseen_figure(scores, results.gamma),
                ),
                *chart("Training", "The terms of the loss, smoothed.", figures.loss_curves(run.metrics)),
            ],
        ),
        Section(
            "Class by class",
            charts=[
                *chart(
                    "Which unseen class is taken for which",
                    "Each row is an unseen class; the diagonal is right. Choice among unseen classes only.",
                    figures.confusion(data, scores),
                ),
                *chart(
                    "Accuracy of every class",
                    "Choice among all classes, with gamma.",
                    figures.class_accuracy(data, scores, results.gamma),
                ),
            ],
        ),
    ]
    path = run.path / "report.html"
    write_report(
        path,
        f"{data.name}: zero-shot recognition",
        summarise(results, where, data),
        sections,
        {**config.as_dict(), **chosen_on},
        environment,
    )
    return path


def summarise(results: Results, where: Localisation | None, data: ZeroShotDataset) -> list[str]:
    """The result in sentences for somebody who does not know the field."""
    unseen = len(data.unseen)
    sentences = [
        f"The model was trained on pictures of {len(data.seen)} classes. It was then shown pictures of "
        f"{unseen} other "
        f"classes, of which it knew nothing but a description ({data.embedding_dim} numbers each).",
        f"It names {100 * results.T1:.0f} of 100 such pictures right when it chooses among the {unseen} "
        "new classes; "
        f"guessing gets {100 / unseen:.0f}.",
        f"When it must choose among all {data.num_classes} classes it names {100 * results.U:.0f} of 100 "
        "pictures of "
        f"new classes and {100 * results.S:.0f} of 100 of known ones (harmonic mean {100 * results.H:.0f}).",
    ]
    if where is not None:
        sentences.append(
            f"The place that its attention weighs most lies on the object in {100 * where.hits:.0f} of 100 "
            "pictures; "
            f"a place picked at random does in {100 * where.chance:.0f}."
        )
    return sentences


def results_table(results: Results, where: Localisation | None, data: ZeroShotDataset) -> Table:
    """Every figure with what it is."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    rows = [
        ["T1", percent(results.T1), "new classes, choice among new classes"],
        ["U", percent(results.U), f"new classes, choice among all, gamma = {results.gamma:.4f}"],
        ["S", percent(results.S), f"known classes, choice among all, gamma = {results.gamma:.4f}"],
        ["H", percent(results.H), "harmonic mean of U and S"],
        ["U, no gamma", percent(results.U0), "the same with gamma = 0"],
        ["S, no gamma", percent(results.S0), "the same with gamma = 0"],
        ["H, no gamma", percent(results.H0), "the same with gamma = 0"],
        ["AUSUC", f"{results.AUSUC:.3f}", "area under S over U for every gamma, from 0 to 1"],
        ["chance", percent(1 / len(data.unseen)), "T1 of guessing"],
    ]
    if where is not None:
        rows.append(
            [
                "attention",
                percent(where.hits),
                f"maxima on the object; {percent(where.chance)} of a random place",
            ]
        )
    caption = (
        "Accuracy is the mean over the classes of the share of a class's test pictures that is named right."
    )
    return Table("results", caption, ["figure", "value", "what it is"], rows)
