"""How long OpenMP's threads wait for each other before they give up their core."""

from __future__ import annotations

import os
import sys

SPINS = "1000"
"""Of `GOMP_SPINCOUNT`, some microseconds. GNU's OpenMP waits some milliseconds unless told, and keeps its core.

On a machine with other work the thread that is waited for has no core then: 450 steps of `shapes` on two cores that
four other processes wanted took 35 to 83 s, and 7 to 8 s with this number. On a quiet machine a step of 6 ms takes 4 %
longer, and steps of 40 ms and more as long as before.
"""


def give_up_soon() -> None:
    """Ask for short waits if this process is one of the package's commands and the user has not chosen.

    OpenMP reads its environment when PyTorch is imported, so this comes before. A user's own program keeps its setting.
    """
    if "torch" in sys.modules or not _is_command(sys.orig_argv):
        return
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _is_command(words: list[str]) -> bool:
    """Of `python -m fastzsl...` and of the console script `fastzsl`."""
    rest = iter(words[1:])
    for word in rest:
        if word in ("-W", "-X"):
            next(rest, None)  # their value
        elif word == "-m":
            return next(rest, "").split(".")[0] == "fastzsl"
        elif not word.startswith("-"):
            return os.path.basename(word) == "fastzsl"
    return False
