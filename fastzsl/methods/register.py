"""The methods by name."""

from __future__ import annotations

from typing import TypeVar

from fastzsl.methods.method import Method

M = TypeVar("M", bound=type[Method])

METHODS: dict[str, type[Method]] = {}
"""Name -> method class, in the order of registration."""


def register(method: M) -> M:
    """Decorator that adds a method class to `METHODS`, so that `--method NAME` finds it.

    Raises:
        ValueError: another class has this name already.
    """
    held = METHODS.get(method.name)
    if held is not None and held.__qualname__ != method.__qualname__:
        raise ValueError(f'there is already a method "{method.name}": {held.__module__}.{held.__qualname__}')
    METHODS[method.name] = method
    return method
