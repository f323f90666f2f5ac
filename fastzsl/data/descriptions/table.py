"""A table of class attributes as users have it: any column names and order, any delimiter, words instead of numbers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastzsl.data.descriptions.names import plain_name
from fastzsl.errors import UserError, nearest

CLASS_HEADERS = ("class", "class name", "classname", "name", "label", "category", "species", "object")
SPLIT_HEADERS = ("split", "set", "subset", "partition")
SPLITS = {
    **dict.fromkeys(("seen", "train", "training", "trainval", "base"), "seen"),
    **dict.fromkeys(("unseen", "test", "testing", "novel", "zero shot"), "unseen"),
}
WORDS = {
    **dict.fromkeys(("yes", "y", "true", "x", "present"), 1.0),
    **dict.fromkeys(("no", "n", "false", "absent"), 0.0),
}
_WITH_UNIT = re.compile(r"([+-]?\d[\d.,]*(?:[eE][+-]?\d+)?)\s*([^\W\d_][^\W\d_]*[²³]?(?:/[^\W\d_]+)?)")
MISSING = ("", "na", "n/a", "nan", "none", "null", "?", "-")


class Table(NamedTuple):
    """See `fastzsl.data.descriptions.reading.Descriptions`."""

    names: list[str]
    splits: list[str] | None
    attributes: list[str]
    values: np.ndarray
    left_out: list[str]
    class_column: str
    split_column: str | None


def read_table(
    path: Path,
    known_classes: Sequence[str] = (),
    *,
    class_column: str | None = None,
    split_column: str | None = None,
    leave_out: Sequence[str] = (),
) -> Table:
    """Read a table of class attributes.

    Columns may have any order. Numbers may have a unit (`12 kg`), the same in the whole column; the attribute's name
    then ends with it, `weight [kg]`. Yes and no, true and false and so on are 1 and 0.

    Args:
        path: text with commas, semicolons, tabs or bars; UTF-8, UTF-16 or Windows' western encoding.
        known_classes: names by which the column of class names is found.
        class_column, split_column: headers of these columns; default: found by content and by name.
        leave_out: headers of columns that are no attributes.

    Raises:
        UserError: anything unclear in the file, naming row and column.
    """
    header, rows, decimal_comma = _cells(path)
    for option, wanted in (("--class-column", class_column), ("--split-column", split_column)):
        if wanted is not None and wanted not in header:
            raise UserError(f'{path}: no column "{wanted}" for {option}{nearest(wanted, header)}')
    for wanted in leave_out:
        if wanted not in header:
            raise UserError(f'{path}: no column "{wanted}" for --leave-out{nearest(wanted, header)}')
    of_class = (
        header.index(class_column) if class_column else _class_column(path, header, rows, known_classes)
    )
    of_split = header.index(split_column) if split_column else _split_column(header, rows)
    names = [row[of_class].strip() for row in rows]
    for row, name in zip(rows, names):
        if not name:
            raise UserError(f'{path}, row {row.line}, column "{header[of_class]}": no class name')
    splits = None if of_split is None else _splits(path, header, rows, of_split)
    attributes, columns, dropped = [], [], []
    for column, title in enumerate(header):
        if column in (of_class, of_split) or title in leave_out:
            continue
        numbers, unit = _column(f'{path}, column "{title}"', [row[column] for row in rows], decimal_comma)
        if all(number is None or math.isnan(number) for number in numbers):
            dropped.append(title)  # words, or nothing at all
            continue
        for row, number in zip(rows, numbers):
            if number is None:
                raise UserError(
                    f'{path}, row {row.line}, column "{title}": "{row[column].strip()}"; wanted a finite number '
                    "as in the column's other rows"
                )
        attributes.append(title if not unit or unit in re.findall(r"\w+", title) else f"{title} [{unit}]")
        columns.append(numbers)
    if not attributes:
        raise UserError(f"{path}: no column of numbers beside the class names")
    twice = next((a for a in attributes if attributes.count(a) > 1), None)
    if twice is not None:
        raise UserError(f'{path}: {attributes.count(twice)} columns are named "{twice}"')
    return Table(
        names, splits, attributes, np.array(columns, dtype=np.float64).T, dropped,
        header[of_class], None if of_split is None else header[of_split],
    )  # fmt: skip


class Row(list[str]):
    """The cells of one row.

    Attributes:
        line: its number in the file, as a spreadsheet counts rows; empty ones count.
    """

    def __init__(self, line: int, cells: list[str]) -> None:
        super().__init__(cells)
        self.line = line


def _cells(path: Path) -> tuple[list[str], list[Row], bool]:
    """The header, rows with as many cells, and whether a comma may be a decimal comma."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no file {path}; wanted a CSV table of class attributes") from None
    if raw.startswith(b"PK"):
        raise UserError(f"{path} is a workbook (.xlsx, .ods); save its sheet as CSV")
    text = _decode(raw)
    if "\0" in text:
        raise UserError(f"{path}: not a text file; wanted a CSV table of class attributes")
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise UserError(f"{path}: the table is empty; wanted a header and a row for each class")
    # csv.Sniffer takes a letter for the delimiter of a table with one column, and fails on many tables with words.
    delimiter = max(",;\t|", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    try:
        numbered = enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), start=1)
        rows = [(line, row) for line, row in numbered if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV table ({error})") from None
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} rows; wanted a header and a row a class")
    header = [cell.strip() for cell in rows[0][1]]
    while header and not header[-1]:
        header.pop()  # spreadsheets leave empty columns at the end
    for title in header:
        if not title:
            raise UserError(f"{path}: column {header.index(title) + 1} has no name in the first row")
        if header.count(title) > 1:
            raise UserError(f'{path}: {header.count(title)} columns are named "{title}"; wanted one')
    for line, row in rows[1:]:
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            raise UserError(f"{path}, row {line}: {len(row)} cells; wanted {len(header)} as in the first row")
    return header, [Row(line, row[: len(header)]) for line, row in rows[1:]], delimiter != ","


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")  # Excel's default on Windows


def _class_column(path: Path, header: list[str], rows: list[Row], known: Sequence[str]) -> int:
    """The column that names most of the known classes, or has a usual header, or is the only one of words."""
    wanted = {plain_name(name) for name in known}
    usual = [plain_name(title) in CLASS_HEADERS for title in header]
    hits = [len({plain_name(row[i]) for row in rows} & wanted) if wanted else 0 for i in range(len(header))]
    best = max(range(len(header)), key=lambda i: (hits[i], usual[i], -i))
    if hits[best] or usual[best]:
        return best
    words = [
        i for i in range(len(header))
        if len({row[i].strip() for row in rows}) == len(rows) and all(_number(r[i], True) is None for r in rows)
    ]  # fmt: skip
    if len(words) == 1 and not known:
        return words[0]
    raise UserError(
        f'{path}: no column has the class names; wanted one with the header "class" (or --class-column)'
    )


def _split_column(header: list[str], rows: list[Row]) -> int | None:
    for i, title in enumerate(header):
        if plain_name(title) in SPLIT_HEADERS and all(plain_name(row[i]) in SPLITS for row in rows):
            return i
    return None


def _splits(path: Path, header: list[str], rows: list[Row], column: int) -> list[str]:
    found = []
    for row in rows:
        word = plain_name(row[column])
        if word not in SPLITS:
            raise UserError(
                f'{path}, row {row.line}, column "{header[column]}": "{row[column].strip()}"; wanted seen or unseen'
            )
        found.append(SPLITS[word])
    return found


def _column(where: str, cells: Sequence[str], decimal_comma: bool) -> tuple[list[float | None], str]:
    """Numbers (NaN for an empty cell, None for words) and the unit of all of them, if they have one."""
    numbers = [_number(cell, decimal_comma) for cell in cells]
    if all(number is not None for number in numbers):
        return numbers, ""
    parts = [_WITH_UNIT.fullmatch(cell.strip()) for cell in cells]
    units = [part[2] if part else "" for part in parts]
    split = [
        number if part is None else _number(part[1], decimal_comma) for number, part in zip(numbers, parts)
    ]
    if any(number is None for number in split):
        return numbers, ""
    found = list(dict.fromkeys(u for u, n in zip(units, split) if n is not None and not math.isnan(n)))
    if len(found) > 1:
        shown = " and ".join(unit or "none" for unit in found[:2])
        raise UserError(f"{where}: the units {shown}; wanted one unit in the whole column")
    return split, found[0]


def _number(cell: str, decimal_comma: bool) -> float | None:
    """The cell's number; NaN if it is empty, None if it is not a number."""
    try:
        number = float(cell)
        if math.isfinite(number):
            return number if abs(number) < 1e30 else None
    except ValueError:
        pass
    word = cell.strip().lower().removesuffix("%").strip()
    if word in MISSING:
        return math.nan
    if word in WORDS:
        return WORDS[word]
    if decimal_comma and word.count(",") == 1 and "." not in word:
        word = word.replace(",", ".")
    try:
        number = float(word)
    except ValueError:
        return None
    return number if abs(number) < 1e30 else None
