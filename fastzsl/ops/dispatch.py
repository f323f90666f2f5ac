"""Which backend runs a call, and why the others do not."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any, NamedTuple

import torch

from fastzsl.errors import UserError, nearest
from fastzsl.ops.compiling import assume_constant_result

KERNELS = ("native", "triton")
"""Backends with their own kernels, in the order in which "auto" tries them; eager runs all other calls."""

NAMES = ("auto", "eager", *KERNELS)
ENVIRONMENT = "FASTZSL_BACKEND"
_WORTH_A_WARNING = 100_000_000  # multiply-adds: some milliseconds


class UnknownBackend(UserError, ValueError):
    """An unknown backend, or an instruction set that this machine does not have."""


class UnservedCall(UserError, RuntimeError):
    """A backend named explicitly cannot run the call; the message lists every reason."""


class Call(NamedTuple):
    """The properties of a call that decide which backends can run it."""

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
    transformed: bool = False
    """Under a transform of `torch.func`, or with a forward-mode tangent."""


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
    """All backends by name: whether this machine has them, and why not.

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


# Filled when a backend is first needed. It is a plain dict because torch.compile traces kernel_module.
_loaded: dict[str, Any] = {}


def check_backend(backend: str = "auto") -> None:
    """Raise early for a backend that no call could use, for example before features are extracted.

    Args:
        backend: as in the ops; for "auto" the value of FASTZSL_BACKEND is checked.

    Raises:
        UnknownBackend: no such backend, or FASTZSL_ISA names an instruction set that this machine does not have.
            It is a `fastzsl.errors.UserError` of one line, and a ValueError.
        UnservedCall: this machine does not have the backend. A UserError of one line, and a RuntimeError.
    """
    name = known_backend(backend)
    for kernels in KERNELS if name == "auto" else (name,):
        missing = _missing(kernels) if kernels in KERNELS else ()
        if missing and name != "auto":
            raise UnservedCall(f'backend "{name}" is not available here: ' + "; ".join(missing))


def known_backend(backend: str) -> str:
    """The name, or for "auto" the value of FASTZSL_BACKEND, if it is one of `NAMES`.

    Raises:
        UnknownBackend: it is not.
    """
    source = "backend"
    if backend == "auto" and (default := default_backend()):
        source, backend = ENVIRONMENT, default
    if backend not in NAMES:
        did_you_mean = nearest(str(backend), list(NAMES))
        raise UnknownBackend(f'{source} is "{backend}"; wanted one of {", ".join(NAMES)}{did_you_mean}')
    return backend


def resolve(backend: str, call: Call) -> str:
    """The name of the backend that runs `call`.

    "auto" chooses the first kernel backend that can run the call and is not slower than eager on it. Any other name
    is used or raises. Under a transform of `torch.func`, with a forward-mode tangent, and in a second derivative,
    every backend differentiates the eager formulas.

    Raises:
        UnknownBackend: unknown name, or an instruction set in FASTZSL_ISA that this machine does not have.
        UnservedCall: a backend named explicitly cannot run the call; every reason is listed.
    """
    backend = known_backend(backend)
    if backend == "eager":
        return "eager"
    if backend == "auto":
        if call.transformed:
            return "eager"
        for name in KERNELS:
            if not _missing(name):
                kernels = kernel_module(name)
                if not kernels.refuses(call) and not kernels.slower(call):
                    return name
        _warn_if_missing(call)
        return "eager"
    reasons = _why_not(backend, call)
    if reasons:
        raise UnservedCall(f'backend "{backend}" cannot serve {call.op}: ' + "; ".join(reasons))
    return "eager" if call.transformed else backend


def explain(call: Call) -> dict[str, list[str]]:
    """For each kernel backend, why "auto" does not use it for `call`; an empty list if it would."""
    reasons = {}
    for name in KERNELS:
        reasons[name] = list(_why_not(name, call))
        if not reasons[name] and (slower := kernel_module(name).slower(call)):
            reasons[name].append(slower)
        if not reasons[name] and call.transformed:
            reasons[name].append("derivatives other than reverse mode are taken of the eager formulas")
    return reasons


def _warn_if_missing(call: Call) -> None:
    """Warn once that `call` would be faster with the native kernels, if it is large and they are not installed."""
    if torch.compiler.is_compiling() or call.device.type != "cpu" or not _missing("native"):
        return
    if call.B * call.T * call.C * call.d >= _WORTH_A_WARNING:
        _warn_once("; ".join(_missing("native")))


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"fastzsl runs plain PyTorch on the CPU: {reason}", RuntimeWarning, stacklevel=7)


def _why_not(name: str, call: Call) -> list[str]:
    missing = _missing(name)
    return list(missing) if missing else list(kernel_module(name).refuses(call))


@assume_constant_result
def _missing(name: str) -> tuple[str, ...]:
    return _missing_once(name)


@functools.cache
def _missing_once(name: str) -> tuple[str, ...]:
    return tuple(kernel_module(name).missing())


@assume_constant_result
def default_backend() -> str:
    """The value of FASTZSL_BACKEND; empty if it is not set."""
    return os.environ.get(ENVIRONMENT, "")
