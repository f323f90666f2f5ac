"""How an entry point ends: one line of error and exit code 2, or a traceback for a fault of ours."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastzsl.command import processes
from fastzsl.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


def exits_with_message(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point: a `UserError` or a full disk becomes one line on stderr and exit code 2.

    Of several processes the first one prints it, see `fastzsl.command.processes`.
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
