"""Command lines made from the fields of a dataclass."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import tyro

from fastzsl.errors import UserError

T = TypeVar("T")
NARROWEST = 40
"""Columns. On a narrower terminal tyro's layout of the help would not terminate."""


def parse(settings: type[T], arguments: list[str] | None, prog: str, description: str) -> T:
    """Settings from the command line; `--help` prints and exits.

    Args:
        settings: a dataclass; its fields become flags, its docstring their help.
        arguments: None for those of the process.
        prog, description: shown by `--help`.

    Raises:
        UserError: a wrong flag or value.
    """
    words = words_of(arguments)
    parsed: T = run_parser(settings, words, prog, description, tyro.MISSING_NONPROP)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        flag = f"--{field.name.replace('_', '-')}"
        if flag in words and field.default == () and getattr(parsed, field.name) == ():
            raise UserError(f"{flag} has no value; leave it out, or give it one ({prog} --help)")
    return parsed


def words_of(arguments: list[str] | None) -> list[str]:
    """The words of a command line."""
    return list(sys.argv[1:] if arguments is None else arguments)


def run_parser(kind: Any, words: list[str], prog: str, description: str, default: Any) -> Any:
    """Parse `words` with tyro.

    Args:
        kind: a dataclass, or one with tyro's markers.
        default: an instance whose values the flags override.

    Raises:
        UserError: a wrong flag or value.
    """
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), _wide_enough():
            return tyro.cli(kind, prog=prog, description=description, args=words, default=default)
    except SystemExit as exit:
        if exit.code:
            raise UserError(f"{_one_line(output.getvalue())} ({prog} --help)") from None
        raise


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    if shutil.get_terminal_size().columns >= NARROWEST:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(NARROWEST)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("COLUMNS")
        else:
            os.environ["COLUMNS"] = before


def _one_line(box: str) -> str:
    """The message that tyro prints in a box: what is wrong and the flags concerned, without their help."""
    parts: list[str] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        inside = line.removeprefix("│").rstrip(" │")
        if not line.startswith(("│ ", "  ")) or set(inside.strip()) <= {"─", "-"}:
            continue  # the frame, and rules
        indent = len(inside) - len(inside.lstrip()) - (1 if line.startswith("│") else 2)
        words = inside.strip()
        if words.startswith(("For full helptext", "Argument helptext")):
            break
        if indent > 4:
            continue  # help of a flag
        if indent == 4 and parts and parts[-1].startswith("-"):
            parts[-1] += ","  # one flag after another
        parts.append(words)
    return " ".join(parts).replace(" Perhaps you meant:", "; perhaps you meant") or " ".join(box.split())
