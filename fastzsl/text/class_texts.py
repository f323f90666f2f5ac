"""Classes and their texts as users give them: words of a command, lines of a file, or the names of folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fastzsl.errors import UserError
from fastzsl.files.special import refuse_special

LARGEST_FILE = 64 << 20


def texts_of(items: Sequence[str], where: str = "") -> dict[str, tuple[str, ...]]:
    """Class name -> texts, from `name` or `name=text`; a name that comes again adds a text.

    Args:
        items: the words of a command or lines of a file.
        where: begins the message of an error.

    Raises:
        UserError: an empty name or text.
    """
    found: dict[str, tuple[str, ...]] = {}
    for item in items:
        name, sign, text = (part.strip() for part in item.partition("="))
        if not name or (sign and not text):
            raise UserError(f'{where}"{item}"; wanted NAME or NAME=TEXT')
        said = text if sign else readable(name)
        if said not in found.get(name, ()):
            found[name] = (*found.get(name, ()), said)
    return found


def texts_in_file(path: Path) -> dict[str, tuple[str, ...]]:
    """As `texts_of`, from a text file with NAME or NAME=TEXT a line; empty lines and lines with # first are skipped.

    Raises:
        UserError: no such file, not UTF-8, or a line that is neither.
    """
    refuse_special(path, "a file of class names")
    if not path.is_file():
        raise UserError(f"no file {path}; wanted a text with NAME or NAME=TEXT a line")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} has more than {LARGEST_FILE >> 20} MiB; wanted a text with a class a line")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8; wanted NAME or NAME=TEXT a line") from None
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"{path}: no class in it; wanted NAME or NAME=TEXT a line")
    return texts_of(lines, f"{path}: ")


def names_of_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder of images, one for each class.

    Raises:
        UserError: no folder, or none in it.
    """
    if not folder.is_dir():
        raise UserError(f"--images: no folder {folder}")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise UserError(f"--images {folder}: no folders in it; wanted one with the images of each class")
    return names


def readable(name: str) -> str:
    """A class name as words: without a number before a dot, and `_` and `+` as spaces."""
    return re.sub(r"[\s_+]+", " ", re.sub(r"^\d+\.", "", name)).strip() or name
