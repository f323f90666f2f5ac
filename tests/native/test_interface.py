"""A compiled module that was left from other sources is not called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastzsl.ops import native

_native = pytest.importorskip("fastzsl._native", reason="the compiled module is not installed")

SOURCE = Path(__file__).parents[2] / "csrc" / "module.cpp"
KNOWN = {1: "8e235f9d56bc", 2: "295588e816a4"}
"""Interface -> digest of the arguments of all functions that fastzsl/ops/native.py calls with addresses."""


@pytest.fixture
def loaded_afresh() -> Iterator[None]:
    native._load.cache_clear()
    yield
    native._load.cache_clear()


def test_a_module_of_another_interface_is_named_as_the_reason(
    monkeypatch: pytest.MonkeyPatch, loaded_afresh: None
) -> None:
    monkeypatch.setattr(_native, "interface", native.INTERFACE + 1)
    [reason] = native.missing()
    assert (
        f"has interface {native.INTERFACE + 1}, this code wants {native.INTERFACE}; install again" in reason
    )


def test_a_module_from_before_there_was_a_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, loaded_afresh: None
) -> None:
    monkeypatch.delattr(_native, "interface")
    assert "has interface 0" in native.missing()[0]


@pytest.mark.skipif(not SOURCE.exists(), reason="needs the sources of the compiled module (csrc/)")
def test_the_number_was_raised_when_arguments_changed() -> None:
    text = SOURCE.read_text()
    arguments = re.findall(r"^void (\w+)\((const (?:Regions|Operand)Tuple[^)]*)\)", text, re.MULTILINE)
    assert {name for name, _ in arguments} == {
        "scores",
        "attend",
        "scores_grad",
        "attend_grad",
        "prepare",
        "linear",
    }
    digest = hashlib.sha256(
        " ".join(repr(a) for a in arguments).replace("\\n", "").replace(" ", "").encode()
    ).hexdigest()[:12]
    assert KNOWN.get(native.INTERFACE) == digest, (
        "raise interface in csrc/module.cpp, INTERFACE, and add its digest"
    )
