"""Convert plain values from YAML to the type of a setting's annotation, or say in one line what was wanted."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from fastzsl.errors import UserError, nearest

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def plain_value(value: Any, wanted: Any, what: str) -> Any:
    """A value from YAML for a field of the type `wanted`: bool, int, float, str, Path, Literal, tuple, Optional.

    Numbers may be texts, because YAML reads 1e-3 as a text.

    Raises:
        UserError: `what`, what was found, and what was wanted.
    """
    options = get_args(wanted)
    if get_origin(wanted) in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (wanted,) = (option for option in options if option is not type(None))
        return plain_value(value, wanted, what)
    if get_origin(wanted) is Literal:
        if value in options:
            return value
        hint = nearest(str(value), [str(option) for option in options])
        raise UserError(f"{what} is {value!r}; wanted one of {', '.join(map(str, options))}{hint}")
    if get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{what} is {value!r}; wanted a list")
        return tuple(plain_value(entry, options[0], what) for entry in value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if wanted is float:
                return number
            if isinstance(value, int) or number.is_integer():
                return int(value) if isinstance(value, int) else int(number)
        except (TypeError, ValueError):
            pass
    elif type(value) is wanted:
        return value
    raise UserError(f"{what} is {value!r}; wanted {WORDS[wanted]}")
