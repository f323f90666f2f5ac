"""A table of text that can be printed, and written as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as Printed

from fastzsl.files.atomic import write_text_atomically


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption.

    Attributes:
        name: of its files.
        caption: a sentence or two.
        header: names of the columns.
        rows: cells as text.
        marked: indices of the paper's rows; the other rows are measured.
        narrow: the columns that are printed where the terminal is too narrow for all; empty for all.
    """

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    marked: frozenset[int] = frozenset()
    narrow: tuple[str, ...] = ()

    @property
    def words(self) -> set[int]:
        """Columns that hold words, not figures: aligned to the left."""
        columns = [[row[i] for row in self.rows] for i in range(len(self.header))]
        return {0} | {i for i, cells in enumerate(columns) if sum(map(_is_figure, cells)) <= len(cells) / 2}

    def markdown(self) -> str:
        rule = ["---" if i in self.words else "---:" for i in range(len(self.header))]
        lines = ["| " + " | ".join(self.header) + " |", "|" + "|".join(rule) + "|"]
        lines += ["| " + " | ".join(_markdown(c) for c in row) + " |" for row in self.rows]
        return f"{self.caption}\n\n" + "\n".join(lines) + "\n"

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.header)
        writer.writerows(self.rows)
        return text.getvalue()

    def latex(self) -> str:
        columns = "".join("l" if i in self.words else "r" for i in range(len(self.header)))
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


def _is_figure(cell: str) -> bool:
    return not cell or cell == "-" or cell[0] in "+-<0123456789"


def _markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _latex(cell: str) -> str:
    for mark, safe in (
        ("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("$", r"\$"),
        ("{", r"\{"), ("}", r"\}"), ("±", r"$\pm$"), ("→", r"$\to$"), ("−", r"$-$"), ("×", r"$\times$"),
    ):  # fmt: skip
        cell = cell.replace(mark, safe) if mark != "\\" else cell.replace("\\", "")
    return cell


def print_table(table: Table, console: Console) -> None:
    """A table on the terminal, the marked rows dimmed; only its `narrow` columns where not every column fits."""
    printed = _printed(table, range(len(table.header)))
    unlimited = console.options.update(max_width=10_000)
    if table.narrow and console.measure(printed, options=unlimited).maximum > console.width:
        shown = [table.header.index(name) for name in table.narrow]
        printed = _printed(table, shown)
        printed.caption = f"{len(table.header) - len(shown)} more columns are in {table.name}.md"
    console.print(printed)


def _printed(table: Table, columns: Iterable[int]) -> Printed:
    printed = Printed(title=table.caption, title_justify="left", caption_justify="left")
    for i in columns:
        name, justify = table.header[i], "left" if i in table.words else "right"
        printed.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for i, row in enumerate(table.rows):
        printed.add_row(*(row[column] for column in columns), style="dim" if i in table.marked else None)
    return printed
