"""Names of classes that are written in different ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fastzsl.errors import UserError, nearest


def match_names(path: Path, found: list[str], wanted: Sequence[str]) -> list[str]:
    """The name in `found` of each wanted class: an equal name, or else one with an equal `plain_name`.

    Raises:
        UserError: a class without such a name, or with two.
    """
    exact = set(found)
    plain: dict[str, list[str]] = {}
    for name in found:
        plain.setdefault(plain_name(name), []).append(name)
    matched = []
    for name in wanted:
        close = [name] if name in exact else plain.get(plain_name(name), [])
        if not close:
            raise UserError(f"{path}: no embedding of class {name}{nearest(name, found)}")
        if len(close) > 1:
            raise UserError(f"{path}: class {name} could be {close[0]} or {close[1]}")
        matched.append(close[0])
    return matched


def plain_name(name: str) -> str:
    """A name in a common form, so that `001.Black_footed_Albatross` and `black footed albatross` are equal."""
    return re.sub(r"[\s_+\-]+", " ", re.sub(r"^\d+\.", "", name.strip())).strip().lower()
