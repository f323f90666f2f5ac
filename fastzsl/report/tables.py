"""A table of text that can be printed, and written as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
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
    """

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    marked: frozenset[int] = frozenset()

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
    """A table on the terminal, the marked rows dimmed."""
    printed = Printed(title=table.caption, title_justify="left")
    for i, name in enumerate(table.header):
        printed.add_column(name, justify="left" if i in table.words else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        printed.add_row(*row, style="dim" if i in table.marked else None)
    console.print(printed)
