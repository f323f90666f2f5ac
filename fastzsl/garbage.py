"""Python's garbage collector in a command: it does not search what the imports made, neither meanwhile nor at the end.

The packages that a command imports make some million objects that live to its end. Searching them took .7 s of 3 s
during the imports, and .9 s after the command's last line.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path


def is_command() -> bool:
    """Whether this process was started as a command of this package. Other programs' collector is left alone."""
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word in ("-W", "-X"):
            next(words, None)
        elif word == "-m":
            return next(words, "").split(".")[0] == "fastzsl"
        elif word == "-c" or not word.startswith("-"):  # what follows is that program's own
            return Path(word).stem == "fastzsl"
    return False


def pause() -> None:
    """Collect nothing until `resume`."""
    if is_command():
        gc.disable()


def resume() -> None:
    """Collect again, but only what is made from now on."""
    if is_command():
        gc.freeze()
        gc.enable()
