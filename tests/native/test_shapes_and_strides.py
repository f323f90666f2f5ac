"""Any shape and any strides give the same as contiguous arguments; no byte is written around an output."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_inputs import error, make

from fastzsl import _native
from fastzsl.ops import attended_scores, dense_attention, native, reference
from fastzsl.ops.saved import values_shape

numbers = st.integers(1, 70)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    B=st.integers(1, 5), T=st.integers(1, 60), C=numbers, d=numbers, m=numbers, t_contiguous=st.booleans(),
    bias=st.booleans(), similarity=st.sampled_from(["dot", "cosine"]), seed=st.integers(0, 1000),
    name=st.sampled_from(_native.isas() if not native.missing() else ["none"]),
    bf16x3_from=st.sampled_from([0, 128]),
)  # fmt: skip
def test_any_shape(
    B: int,
    T: int,
    C: int,
    d: int,
    m: int,
    t_contiguous: bool,
    bias: bool,
    similarity: str,
    seed: int,
    name: str,
    bf16x3_from: int,
) -> None:
    torch.manual_seed(seed)
    before, split_before = _native.isa(), _native.bf16x3_from()
    _native.set_isa(name)
    _native.set_bf16x3_from(bf16x3_from)
    try:
        inputs = make(B, T, C, d, m, t_contiguous=t_contiguous, bias=bias)
        exact = inputs.double()
        for order in native.ORDERS[similarity]:
            got, _, _ = native.scores_forward(*inputs, similarity, 1.0, order, False)
            assert error(got, reference.attended_scores(*exact, similarity=similarity)) < 2e-5
        got, _ = native.attention_forward(*inputs[:2], 1.0, False)
        assert error(got, reference.dense_attention(*exact[:2])) < 1e-5
    finally:
        _native.set_isa(before)
        _native.set_bf16x3_from(split_before)


@pytest.mark.parametrize("T", [1, 7, 49, 50, 196, 576])
@pytest.mark.parametrize("t_contiguous", [False, True])
def test_region_counts_of_real_backbones(T: int, t_contiguous: bool, seed: int) -> None:
    inputs = make(3, T, 45, 770, 12, t_contiguous=t_contiguous)
    exact = inputs.double()
    got = attended_scores(*inputs, backend="native")
    assert error(got, reference.attended_scores(*exact)) < 1e-5
    assert error(dense_attention(*inputs[:2], backend="native"), reference.dense_attention(*exact[:2])) < 1e-5


def test_other_strides(isa: str, seed: int) -> None:
    inputs = make(4, 9, 20, 24, 10)
    want = attended_scores(*inputs, similarity="dot", backend="native")
    wide = torch.randn(4, 9, 2, 48, 2)
    wide[:, :, 0, ::2, 0] = inputs.regions.detach()
    strided = wide[:, :, 0, ::2, 0]
    others = [
        torch.stack([t.detach(), t.detach()], -1)[..., 0]
        for t in (inputs.queries, inputs.weight, inputs.bias, inputs.classes)
    ]
    assert not strided.is_contiguous()
    assert not any(t.is_contiguous() for t in others)
    got = attended_scores(strided, *others, similarity="dot", backend="native")
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    one = inputs.regions[:1].detach().expand(4, -1, -1)
    torch.testing.assert_close(
        attended_scores(one, *inputs[1:], backend="native"),
        attended_scores(one.contiguous(), *inputs[1:], backend="native"),
    )


def test_flat_regions_equal_the_conv_map(isa: str, seed: int) -> None:
    conv_map, queries = torch.randn(3, 40, 7, 7), torch.randn(21, 40)
    view = conv_map.flatten(2).transpose(1, 2)
    channels_last = conv_map.to(memory_format=torch.channels_last).flatten(2).transpose(1, 2)
    a = dense_attention(view, queries, backend="native")
    b = dense_attention(channels_last, queries, backend="native")
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_nothing_is_written_around_the_outputs(isa: str, dtype: torch.dtype, seed: int) -> None:
    """Outputs lie in buffers of NaN with guard bands: all of the inside changes, nothing outside does."""
    for B, T, C, d, m in [(3, 7, 17, 33, 5), (2, 49, 40, 64, 31), (1, 1, 1, 1, 1)]:
        inputs = [t.detach().contiguous() for t in make(B, T, C, d, m, dtype=dtype).present()]
        guard = 64
        whole: list[torch.Tensor] = []

        def output(numbers: int) -> int:
            whole.append(torch.full((numbers + 2 * guard,), float("nan"), dtype=dtype))  # noqa: B023
            return whole[-1].data_ptr() + guard * dtype.itemsize  # noqa: B023

        x = native._describe(inputs[0])
        addresses = [t.data_ptr() for t in inputs[1:]]
        orders = [
            (
                native._SIMILARITY[similarity],
                native._ORDER[order],
                values_shape(B, T, C, d, m, similarity, order),
            )
            for similarity, names in native.ORDERS.items()
            for order in names
        ]
        for similarity, order, shape in orders:
            values = math.prod(shape)
            scores, attention, saved = output(B * C), output(B * C * T), output(values)
            _native.scores(x, *addresses, C, m, 1.0, similarity, order, scores, attention, saved, 2)
            grad = torch.randn(B, C).to(dtype)
            outputs = [output(t.numel()) for t in inputs]
            _native.scores_grad(
                x,
                *addresses,
                C,
                m,
                1.0,
                similarity,
                order,
                grad.data_ptr(),
                attention,
                saved,
                *outputs,
                2,
            )
        attended, attention = output(B * C * d), output(B * C * T)
        _native.attend(x, addresses[0], C, 1.0, attended, attention, 2)
        d_regions, d_queries = output(B * T * d), output(C * d)
        _native.attend_grad(x, addresses[0], C, 1.0, attended, 0, attention, d_regions, d_queries, 2)
        for t in whole:
            assert t[:guard].isnan().all()
            assert t[-guard:].isnan().all()
            assert t[guard:-guard].isfinite().all()
