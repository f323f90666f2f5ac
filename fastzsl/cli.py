"""Command lines made from the fields of a dataclass, and progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fastzsl import processes
from fastzsl.errors import UserError

T = TypeVar("T")


def parse(
    settings: type[T],
    arguments: list[str] | None,
    prog: str,
    description: str,
    load: Callable[[Path], T] | None = None,
) -> T:
    """Settings from the command line; a wrong flag or value prints what was wanted and exits with code 2.

    Args:
        settings: a dataclass; its fields become flags, its docstring their help.
        arguments: None for those of the process.
        prog, description: shown by `--help`.
        load: reads the file given with `--config FILE`, whose values the other flags override.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    default = None
    if load is not None:
        file, words = _take_config(words)
        default = load(file) if file else None
        description += "\n\n--config FILE takes the settings from a run's config.yaml; flags override it."
    chosen = tyro.MISSING_NONPROP if default is None else default
    with processes.first_prints():
        return tyro.cli(settings, prog=prog, description=description, args=words, default=chosen)


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
