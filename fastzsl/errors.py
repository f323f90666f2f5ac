"""The error for wrong input: one line that says what is wrong, what was found and what was wanted."""

from __future__ import annotations


class UserError(Exception):
    """Something in the input is wrong, and the message says how to correct it.

    Entry points print it as one line and exit with code 2. Users of the library can catch it.
    """


def first_line(error: BaseException, length: int = 100) -> str:
    """The message of an error of another library, shortened to part of a line; its type if it has no message."""
    lines = str(error).splitlines()
    return lines[0][:length] if lines else type(error).__name__


def nearest(name: str, known: list[str]) -> str:
    """`'; did you mean "x"?'` for the closest known name, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""
