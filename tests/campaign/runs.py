"""Commands of fastzsl in forked processes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

COMMANDS = ("train", "eval", "predict", "tune", "reproduce", "extract", "make_dataset", "info")
SLOWEST = 180.0
"""Seconds after which a command counts as hanging. It runs beside other work."""


def import_everything() -> None:
    """Import what the commands need, before the first fork; nothing may start a thread here."""
    for name in COMMANDS:
        importlib.import_module(f"fastzsl.{name}")
    for name in ("timm", "torch.utils.tensorboard", "matplotlib.pyplot", "fastzsl.report.run"):
        importlib.import_module(name)


class Run:
    """A command that runs in a process of its own.

    Args:
        command: name of the module in fastzsl.
        words: its arguments.
        errors: file for its stderr.
        cache: FASTZSL_CACHE.
        prepare: called in the new process before the command starts.
    """

    def __init__(
        self,
        command: str,
        words: Sequence[str],
        errors: Path,
        cache: Path,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self.shown = f"{command} {' '.join(map(repr, words))}"[:700]
        self.began, self._errors = time.monotonic(), errors
        self._status: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(command, list(words), errors, cache, prepare)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
                self._end_group()  # processes that it started
        return self._status

    def wait(self, seconds: float = SLOWEST) -> int | None:
        """The exit code, or None if it still runs after `seconds`; then it is ended."""
        deadline = self.began + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                return None
            time.sleep(0.002)
        return self._status

    def kill(self) -> bool:
        """SIGKILL; False if it had ended before."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        self._end_group()
        return self._status == -signal.SIGKILL

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def errors(self) -> str:
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def fault(self, allowed: Sequence[int] = (0, 2)) -> str | None:
        """Wait until it ends; what it should not have done, or None.

        Allowed: the exit codes `allowed`, with exit code 2 exactly one line of error, and no traceback.
        """
        code, errors = self.wait(), self.errors()
        lines = [line for line in errors.splitlines() if line.strip()]
        if code is None:
            return f"hangs: {self.shown}"
        if code not in allowed or "Traceback" in errors:
            return f"exit code {code}: {self.shown}\n    " + "\n    ".join(lines[-12:])
        if code == 2 and sum(line.startswith("fastzsl: error") for line in lines) != 1:
            return f"{len(lines)} lines of error: {self.shown}\n    " + "\n    ".join(lines[:4])
        return None


def _become(command: str, words: list[str], errors: Path, cache: Path, prepare: Callable[[], object]) -> None:
    """Run the command in this new process and end it."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, os.devnull, os.O_WRONLY),
            (2, str(errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            descriptor = os.open(name, flags, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ["FASTZSL_CACHE"] = str(cache)
        prepare()
        importlib.import_module(f"fastzsl.{command}").main(words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
