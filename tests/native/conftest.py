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


ALWAYS_BF16X3 = "amx, always bf16x3"


@pytest.fixture(params=(ISAS + [ALWAYS_BF16X3] * ("amx" in ISAS)) or ["none"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn, the last one also with float32 always as bf16x3."""
    before, bf16x3_from = _native.isa(), _native.bf16x3_from()
    name = request.param.split(",")[0]
    _native.set_isa(name)
    if request.param == ALWAYS_BF16X3:
        _native.set_bf16x3_from(0)
    yield name
    _native.set_isa(before)
    _native.set_bf16x3_from(bf16x3_from)
