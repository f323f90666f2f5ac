"""Which backend serves a call, and why the others do not."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any, NamedTuple

import torch

KERNELS = ("native", "triton")
"""Backends with kernels of their own, in the order in which "auto" tries them; eager serves what they cannot."""

NAMES = ("auto", "eager", *KERNELS)
ENVIRONMENT = "FASTZSL_BACKEND"


class Call(NamedTuple):
    """What a backend has to know of a call to say whether it can serve it."""

    op: str
    """"dense_attention" or "attended_scores"."""
    device: torch.device
    dtype: torch.dtype
    B: int
    T: int
    C: int
    d: int
    m: int = 0
    similarity: str = ""
    needs_grad: bool = False


class Backend(NamedTuple):
    """One backend on this machine; `if backend:` asks whether it is available."""

    name: str
    available: bool
    reasons: tuple[str, ...]
    """Why it is not available; empty if it is."""

    def __bool__(self) -> bool:
        return self.available

    def __str__(self) -> str:
        return f"{self.name}: " + ("available" if self.available else "; ".join(self.reasons))


def backends() -> dict[str, Backend]:
    """The backends of this machine by name, and for each one that it has not, why.

    >>> bool(backends()["eager"])
    True
    """
    return {"eager": Backend("eager", True, ())} | {
        name: Backend(name, not _missing(name), _missing(name)) for name in KERNELS
    }


def kernel_module(name: str) -> Any:
    """The module of a kernel backend: `fastzsl.ops.native` or `fastzsl.ops.triton`."""
    if name not in _loaded:
        _loaded[name] = importlib.import_module(f"fastzsl.ops.{name}")
    return _loaded[name]


# Filled by the first question about a backend; a plain dict, because torch.compile traces kernel_module.
_loaded: dict[str, Any] = {}


def resolve(backend: str, call: Call) -> str:
    """The name of the backend that serves `call`.

    "auto" takes the first kernel backend that can serve the call and is not slower than eager on it; any
    other name is a demand.

    Raises:
        ValueError: unknown name.
        RuntimeError: a backend named explicitly cannot serve; every reason is listed.
    """
    if backend == "auto":
        backend = _default()
    if backend not in NAMES:
        raise ValueError(f'backend is "{backend}"; wanted one of {", ".join(NAMES)}')
    if backend == "eager":
        return "eager"
    if backend == "auto":
        for name in KERNELS:
            if not _why_not(name, call) and not kernel_module(name).slower(call):
                return name
        return "eager"
    reasons = _why_not(backend, call)
    if reasons:
        raise RuntimeError(f'backend "{backend}" cannot serve {call.op}: ' + "; ".join(reasons))
    return backend


def explain(call: Call) -> dict[str, list[str]]:
    """For each kernel backend why "auto" passes it over for `call`; an empty list means it would serve."""
    told = {}
    for name in KERNELS:
        told[name] = list(_why_not(name, call))
        if not told[name] and (slower := kernel_module(name).slower(call)):
            told[name].append(slower)
    return told


def _why_not(name: str, call: Call) -> list[str]:
    missing = _missing(name)
    return list(missing) if missing else list(kernel_module(name).refuses(call))


@torch.compiler.assume_constant_result
def _missing(name: str) -> tuple[str, ...]:
    return _missing_once(name)


@functools.cache
def _missing_once(name: str) -> tuple[str, ...]:
    return tuple(kernel_module(name).missing())


@torch.compiler.assume_constant_result
def _default() -> str:
    return os.environ.get(ENVIRONMENT) or "auto"
