"""Zero-shot methods, one file each. `METHODS` maps a name to its class; `register.register` adds one."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Importing all methods takes a while, and importing one of them imports this package first.
    if name in ("METHODS", "find_method"):
        from fastzsl.methods import catalogue

        return getattr(catalogue, name)
    if name in ("Method", "Model", "ClassSet"):
        from fastzsl.methods import method

        return getattr(method, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
