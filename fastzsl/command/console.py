"""Output for people: names are never read as markup, and progress also shows in a log file."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LOG_SECONDS = 10.0
"""Seconds between two lines of progress if the output is not a terminal."""


def open_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints texts as they are: a class may be called `[/x]` or `:smile:`."""
    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


def printable(text: str) -> str:
    """The text with control characters, such as terminal escapes, written as `\\x1b` and so on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ProgressBars(Progress):
    """Bars with counts and times on a terminal; on other outputs a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        super().__init__(*columns, console=console)
        self._last_line = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:  # type: ignore[override]
        super().update(task_id, **changes)
        self._log(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._log(task_id)

    def _log(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._last_line < LOG_SECONDS:
            return
        self._last_line = now
        task = next((t for t in self.tasks if t.id == task_id), None)
        if task is not None and not self.console.quiet:
            whole = "?" if task.total is None else f"{task.total:.0f}"
            seconds = task.elapsed or 0.0
            self.console.print(f"{task.description}: {task.completed:.0f} of {whole}, {seconds:.0f} s")


def progress_bars(console: Console) -> ProgressBars:
    """Progress for a command."""
    return ProgressBars(console)
