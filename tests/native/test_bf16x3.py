"""float32 products as six bfloat16 products (AMX): the call starts again where an input is infinite."""

from __future__ import annotations

import pytest
import torch
from native_inputs import make

from fastzsl import _native
from fastzsl.ops import native


@pytest.mark.parametrize("order", native.ORDERS["cosine"])
def test_nothing_is_left_of_the_first_attempt(order: str, seed: int) -> None:
    """The first attempt gets as far as the last block of classes before it meets infinity."""
    before, bf16x3_from = _native.isa(), _native.bf16x3_from()
    inputs = [t.detach() for t in make(4, 50, 600, 24, 230)]
    inputs[1][590, 3] = float("inf")
    try:
        results = []
        for name in ("avx512", "amx"):
            if name not in _native.isas():
                pytest.skip(f"no {name} here")
            _native.set_isa(name)
            _native.set_bf16x3_from(0)
            scores, *saved = native.scores_forward(*inputs, "cosine", 1.0, order, True)
            grads = native.scores_backward(
                torch.ones(4, 600), *inputs, *saved, "cosine", 1.0, order, [True] * 5
            )
            results.append([scores, *saved, *grads])
    finally:
        _native.set_isa(before)
        _native.set_bf16x3_from(bf16x3_from)
    assert results[0][0][:, :590].isfinite().all()
    assert not results[0][0][:, 590].isfinite().any()
    for a, b in zip(*results):
        assert torch.equal(a.isfinite(), b.isfinite())
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
