"""Backends say what they can serve; "auto" falls back and can tell why, a named one refuses with reasons."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.ops import Call, backends, check_backend, dense_attention, dispatch, explain

CALL = Call("dense_attention", torch.device("cpu"), torch.float32, 2, 49, 10, 64)


class Picky:
    """A backend that lacks a device and refuses float64."""

    ORDERS = {"dot": ("prototype",), "cosine": ("project",)}  # noqa: RUF012

    def __init__(self, missing: list[str]) -> None:
        self._missing = missing

    def missing(self) -> list[str]:
        return self._missing

    def refuses(self, call: Call) -> list[str]:
        return ["float64 is not served", "odd d is not served"] if call.dtype == torch.float64 else []

    def slower(self, call: Call) -> str | None:
        return "eager is as fast below 100 classes" if call.C < 100 else None


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def install(**modules: Picky) -> None:
        monkeypatch.setattr(dispatch, "kernel_module", lambda name: modules[name])
        monkeypatch.setattr(dispatch, "_missing", lambda name: tuple(modules[name].missing()))

    monkeypatch.delenv(dispatch.ENVIRONMENT, raising=False)
    return install


def test_eager_is_everywhere_and_every_absence_has_a_reason() -> None:
    found = backends()
    assert set(found) == {"eager", "native", "triton"}
    assert found["eager"]
    for backend in found.values():
        assert bool(backend) == (not backend.reasons)
        assert backend.name in str(backend)


def test_named_backend_lists_every_reason(picky) -> None:  # type: ignore[no-untyped-def]
    picky(native=Picky([]), triton=Picky(["no GPU", "no Triton"]))
    with pytest.raises(RuntimeError, match="float64 is not served; odd d is not served"):
        dispatch.resolve("native", CALL._replace(dtype=torch.float64))
    with pytest.raises(RuntimeError, match='"triton" cannot serve dense_attention: no GPU; no Triton'):
        dispatch.resolve("triton", CALL)


def test_auto_passes_over_what_is_missing_or_slower_and_says_why(picky) -> None:  # type: ignore[no-untyped-def]
    picky(native=Picky([]), triton=Picky(["no GPU"]))
    assert dispatch.resolve("auto", CALL) == "eager"
    assert dispatch.resolve("auto", CALL._replace(C=200)) == "native"
    assert explain(CALL) == {"native": ["eager is as fast below 100 classes"], "triton": ["no GPU"]}


def test_a_named_backend_serves_even_where_it_is_slower(picky) -> None:  # type: ignore[no-untyped-def]
    picky(native=Picky([]), triton=Picky([]))
    assert dispatch.resolve("native", CALL) == "native"


def test_environment_sets_the_default(picky, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    picky(native=Picky([]), triton=Picky(["no GPU"]))
    monkeypatch.setenv(dispatch.ENVIRONMENT, "eager")
    assert dispatch.resolve("auto", CALL._replace(C=200)) == "eager"
    monkeypatch.setenv(dispatch.ENVIRONMENT, "triton")
    with pytest.raises(RuntimeError, match="no GPU"):
        dispatch.resolve("auto", CALL)
    assert dispatch.resolve("native", CALL) == "native"


def test_float64_works_on_auto() -> None:
    assert dense_attention(torch.zeros(1, 2, 3).double(), torch.zeros(2, 3).double()).dtype == torch.float64


def test_an_unknown_backend_is_one_line_for_commands_and_a_value_error_for_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT, "egaer")
    for call in (check_backend, lambda: dense_attention(torch.zeros(1, 2, 3), torch.zeros(2, 3))):
        with pytest.raises(
            UserError, match=r'^FASTZSL_BACKEND is "egaer"; wanted .*; did you mean "eager"\?$'
        ) as e:
            call()
        assert isinstance(e.value, ValueError)
    check_backend("eager")
    with pytest.raises(UserError, match='backend is "cuda"; wanted one of'):
        check_backend("cuda")


def test_a_backend_that_is_not_here_is_refused_early(picky) -> None:  # type: ignore[no-untyped-def]
    picky(native=Picky([]), triton=Picky(["no GPU", "no Triton"]))
    check_backend("auto")
    check_backend("native")
    with pytest.raises(UserError, match='backend "triton" is not available here: no GPU; no Triton') as e:
        check_backend("triton")
    assert isinstance(e.value, RuntimeError)


def test_an_unknown_instruction_set_is_refused_in_one_line_by_everything() -> None:
    if not backends()["native"]:
        pytest.skip(str(backends()["native"]))
    code = """
import torch, fastzsl
from fastzsl.ops import attended_scores, backends, check_backend, dense_attention, eager
X, H = torch.zeros(1, 2, 3), torch.zeros(2, 3)
for call in (backends, check_backend, lambda: dense_attention(X, H), lambda: dense_attention(X, H, backend="native")):
    try:
        call()
    except fastzsl.errors.UserError as error:
        print(error)
dense_attention(X, H, backend="eager")
"""
    environment = {**os.environ, "FASTZSL_ISA": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert set(lines) == {lines[0]}
    assert lines[0].startswith('FASTZSL_ISA: instruction set "nonsense" is not available')
