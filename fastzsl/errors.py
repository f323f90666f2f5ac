"""The error that a person can mend: one line naming what, found and wanted."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastzsl import processes

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something in the input is wrong and the message says how to mend it.

    Entry points print it as one line and exit with code 2; library users can catch it.
    """


def exits_with_message(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point: a `UserError` or a full disk becomes one line on stderr and exit code 2.

    Of several processes the first one prints it, see `fastzsl.processes`.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            message = str(error)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            message = f"{error.strerror or error}{where}"
        except KeyboardInterrupt:
            print("\nfastzsl: interrupted; what was already written is kept", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception:
            processes.let_others_speak(1)  # the partner that is lost may know why
            raise
        processes.report(f"fastzsl: error: {message}")
        raise SystemExit(2)

    return wrapped


def first_line(error: BaseException, length: int = 100) -> str:
    """What an error of another library says, in part of a line; its type where it says nothing."""
    lines = str(error).splitlines()
    return lines[0][:length] if lines else type(error).__name__


def nearest(name: str, known: list[str]) -> str:
    """`'; did you mean "x"?'` for the closest known name, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""
