"""Backends say what they can serve; "auto" falls back and can tell why, a named one refuses with reasons."""

from __future__ import annotations

import pytest
import torch

from fastzsl.ops import Call, backends, dense_attention, dispatch, explain

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
