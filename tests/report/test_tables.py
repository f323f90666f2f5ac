"""Tables on the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastzsl.report.tables import Table, print_table

TABLE = Table(
    "methods",
    "A caption.",
    ["method", "T1", "reads", "H"],
    [["ours", "61.3", "x" * 60, "59.4"]],
    narrow=("method", "H"),
)


def printed(table: Table, width: int) -> str:
    text = io.StringIO()
    print_table(table, Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_gets_the_chosen_columns_and_is_told_where_the_others_are(width: int) -> None:
    text = printed(TABLE, width)
    assert "ours" in text
    assert "59.4" in text
    assert "61.3" not in text
    assert "2 more columns are in methods.md" in " ".join(text.split())


def test_a_wide_terminal_gets_all_columns() -> None:
    text = printed(TABLE, 120)
    assert "x" * 60 in text
    assert "more columns" not in text


def test_files_have_all_columns() -> None:
    assert "61.3" in TABLE.markdown()
    assert "61.3" in TABLE.csv()
    assert "61.3" in TABLE.latex()
