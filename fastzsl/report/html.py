"""Self-contained HTML reports: one file without scripts and without requests to other addresses."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure as Plot

from fastzsl.files.atomic import write_text_atomically
from fastzsl.report import plots
from fastzsl.report.gallery import Exhibit
from fastzsl.report.tables import Table

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("fastzsl.report"),
    autoescape=True,  # class names come from users' files
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Chart:
    """A figure with its explanation.

    Attributes:
        heading, text: what it shows and how to read it.
        uri: the image as a data URI.
    """

    heading: str
    text: str
    uri: str


def chart(heading: str, text: str, plot: Plot | None) -> list[Chart]:
    """A list of the chart, or an empty list if there is none, so that lists of charts can be added."""
    if plot is None:
        return []
    image = base64.b64encode(plots.svg(plot).encode()).decode()
    return [Chart(heading, text, f"data:image/svg+xml;base64,{image}")]


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, text, tables, charts and images; empty parts are left out."""

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
        summary: sentences that can be understood without knowing the code.
        sections: in their order.
        configuration, environment: shown at the end, collapsed.
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
