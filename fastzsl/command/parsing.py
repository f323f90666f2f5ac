"""Command lines made from the fields of a dataclass, and progress bars."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fastzsl.errors import UserError

T = TypeVar("T")


def parse(
    settings: type[T],
    arguments: list[str] | None,
    prog: str,
    description: str,
    load: Callable[[Path], T] | None = None,
) -> T:
    """Settings from the command line; `--help` prints and exits.

    Args:
        settings: a dataclass; its fields become flags, its docstring their help.
        arguments: None for those of the process.
        prog, description: shown by `--help`.
        load: reads the file given with `--config FILE`, whose values the other flags override.

    Raises:
        UserError: a wrong flag or value.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    default = None
    if load is not None:
        file, words = _take_config(words)
        default = load(file) if file else None
        description += "\n\n--config FILE takes the settings from a run's config.yaml; flags override it."
    chosen = tyro.MISSING_NONPROP if default is None else default
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(settings, prog=prog, description=description, args=words, default=chosen)
    except SystemExit as exit:
        if exit.code:
            raise UserError(f"{_one_line(said.getvalue())} ({prog} --help)") from None
        raise


def _one_line(box: str) -> str:
    """What tyro says in a box, drawn or of spaces: what is wrong and the flags that it names, without their help."""
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
        if indent == 4 and parts[-1].startswith("-"):
            parts[-1] += ","  # one flag after another
        parts.append(words)
    return " ".join(parts).replace(" Perhaps you meant:", "; perhaps you meant") or " ".join(box.split())


def _take_config(words: list[str]) -> tuple[Path | None, list[str]]:
    for i, word in enumerate(words):
        if word == "--config":
            if i + 1 == len(words):
                raise UserError("--config needs a file, the config.yaml of a run")
            return Path(words[i + 1]), words[:i] + words[i + 2 :]
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), words[:i] + words[i + 1 :]
    return None, words


def progress_bars(console: Console) -> Progress:
    """Bars with counts and times; nothing but a line each where the output is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
