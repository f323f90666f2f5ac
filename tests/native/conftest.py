"""Every instruction set in turn; a reason to skip where there is none; `native_inputs` for import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastzsl.ops import native

sys.path.insert(0, str(Path(__file__).parent))

if native.missing():
    ISAS: list[str] = []
else:
    from fastzsl import _native

    ISAS = _native.isas()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/native" in str(item.path) and native.missing():
            item.add_marker(pytest.mark.skip(reason="; ".join(native.missing())))


@pytest.fixture(params=ISAS or ["none"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn."""
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)
