"""How an entry point ends: one line and exit code 2 for wrong input, a traceback for a bug of the package."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fastzsl import garbage
from fastzsl.allocator import keep_freed_memory
from fastzsl.command import processes
from fastzsl.command.console import printable
from fastzsl.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

NO_MEMORY = ("can't allocate memory", "out of memory", "can't start new thread")
"""What errors of PyTorch and Python say where memory is missing; a thread needs memory for its stack."""


def exits_with_message(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point: a `UserError` or a full disk becomes one line on stderr and exit code 2.

    If there are several processes, the first one prints it, see `fastzsl.command.processes`. Characters that the
    output's encoding does not have are printed as escapes.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        keep_freed_memory()
        garbage.resume()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            return main(*args, **kwargs)
        except UserError as error:
            message = str(error)
        except MemoryError as error:
            message = f"not enough memory ({error or 'smaller sizes need less'})"
        except BrokenPipeError:
            sys.stderr.close()  # the reader of the output has ended
            raise SystemExit(0) from None
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            message = f"{error.strerror or error}{where}"
        except KeyboardInterrupt:
            print("\nfastzsl: interrupted; what was already written is kept", file=sys.stderr)
            raise SystemExit(130) from None
        except RuntimeError as error:
            if not _lacks_memory(error):
                processes.let_others_speak(1)
                raise
            message = "not enough memory; smaller sizes (--hidden, --batch-size) need less"
        except Exception:
            processes.let_others_speak(1)  # the lost process may know the reason
            raise
        finally:
            garbage.resume()  # nothing of the command is searched at the exit
        processes.report(f"fastzsl: error: {printable(' '.join(message.splitlines()))}")
        raise SystemExit(2)

    return wrapped


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether it says so, or hides a MemoryError: `torch.save` ends with another error when its buffer cannot grow."""
    if any(words in str(error) for words in NO_MEMORY):
        return True
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MemoryError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
