"""Marks for torch.compile, set without importing torch._dynamo, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def assume_constant_result(function: F) -> F:
    """As `torch.compiler.assume_constant_result`, which sets this very mark but imports `torch._dynamo` first."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
