"""The softmax survives extreme logits, NaN and infinity come out as in eager PyTorch, empty batches work."""

from __future__ import annotations

import pytest
import torch
from native_inputs import error, make

from fastzsl.ops import attended_scores, dense_attention, native, reference


def test_huge_logits(isa: str, seed: int) -> None:
    regions, queries = torch.randn(2, 49, 32), torch.randn(20, 32)
    attended, attention = dense_attention(
        regions, queries, scale=1e4, return_attention=True, backend="native"
    )
    _, truth = reference.dense_attention(regions.double(), queries.double(), scale=1e4, return_attention=True)
    assert attended.isfinite().all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 20))
    assert (attention.argmax(-1) == truth.argmax(-1)).float().mean() > 0.99


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_tiny_attention_is_as_good_as_none(isa: str, similarity: str, seed: int) -> None:
    """A sharp softmax leaves numbers at the edge of float32, in every layout that a product packs."""
    inputs = [t.detach() for t in make(2, 49, 64, 256, 40)]
    inputs[1] *= 16
    truth = reference.attended_scores(*(t.double() for t in inputs), similarity=similarity, scale=4.0)
    for order in native.ORDERS[similarity]:
        got, attention, _ = native.scores_forward(*inputs, similarity, 4.0, order, True)
        assert 0 < attention[attention > 0].min() < 1e-37
        torch.testing.assert_close(got.double(), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-36, 1e-39])
def test_tiny_inputs(isa: str, magnitude: float, seed: int) -> None:
    regions, queries = torch.randn(2, 49, 64) * magnitude, torch.randn(20, 64)
    attended = dense_attention(regions, queries, backend="native")
    truth = reference.dense_attention(regions.double(), queries.double())
    assert isinstance(attended, torch.Tensor)
    assert isinstance(truth, torch.Tensor)
    torch.testing.assert_close(attended.double(), truth, rtol=0, atol=max(magnitude * 1e-5, 1e-38))


def test_equal_logits_share_equally(isa: str) -> None:
    for T in (1, 7, 49):
        _, attention = dense_attention(
            torch.ones(2, T, 16), torch.randn(5, 16), return_attention=True, backend="native"
        )
        torch.testing.assert_close(attention, torch.full((2, 5, T), 1 / T))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e15])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_non_finite_inputs_come_out_as_in_eager(isa: str, value: float, similarity: str, seed: int) -> None:
    inputs = [t.detach() for t in make(3, 9, 20, 24, 10)]
    inputs[0][1, 4, 3] = value
    inputs[1][7, 5] = value
    for order in native.ORDERS[similarity]:
        eager = reference.attended_scores(*inputs, similarity=similarity)
        got, _, _ = native.scores_forward(*inputs, similarity, 1.0, order, False)
        # Orders sum in their own way: one may meet inf - inf where another meets inf. Neither is finite.
        assert torch.equal(got.isfinite(), eager.isfinite())
        assert got[0, 0].isfinite()
    eager_attended, eager_attention = reference.dense_attention(*inputs[:2], return_attention=True)
    attended, attention = dense_attention(*inputs[:2], return_attention=True, backend="native")
    assert torch.equal(attention.isnan(), eager_attention.isnan())
    assert torch.equal(attended.isfinite(), eager_attended.isfinite())


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_squares_that_leave_float32_spoil_only_their_own_scores(isa: str, similarity: str, seed: int) -> None:
    """|e|² of a feature of 1e30 is infinite in one order and a finite sum in another: only its image may differ, and
    logits of 1e60 are infinite, so that the class with such a query may differ too."""
    inputs = [t.detach() for t in make(3, 9, 20, 24, 10)]
    inputs[0][1, 4, 3] = 1e30
    inputs[1][7, 5] = 1e30
    eager = reference.attended_scores(*inputs, similarity=similarity)
    others = torch.ones(3, 20, dtype=torch.bool)
    others[1] = others[:, 7] = False
    for order in native.ORDERS[similarity]:
        got, _, _ = native.scores_forward(*inputs, similarity, 1.0, order, False)
        assert eager[others].isfinite().all()
        torch.testing.assert_close(got[others], eager[others], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_zero_length_embeddings_are_clamped_as_in_normalize(isa: str, dtype: torch.dtype, seed: int) -> None:
    inputs = make(2, 9, 6, 24, 10, bias=False, dtype=dtype)
    with torch.no_grad():
        inputs.classes[2] = 0
        inputs.regions[1] = 0
    want = reference.attended_scores(*inputs, similarity="cosine")
    truth = torch.autograd.grad(want.sum(), inputs.present())
    relative, absolute = (1e-3, 1e-4) if dtype == torch.float32 else (5e-2, 5e-2)
    for order in native.ORDERS["cosine"]:
        with torch.no_grad():
            got = native.scores_forward(*inputs, "cosine", 1.0, order, True)
            grads = native.scores_backward(
                torch.ones(2, 6, dtype=dtype), *inputs, *got[1:], "cosine", 1.0, order, [True] * 5
            )
        torch.testing.assert_close(got[0], want, rtol=relative, atol=absolute)
        for a, b in zip([g for g, t in zip(grads, inputs) if t is not None], truth):
            clamped = b.abs() > 1e6  # 1e12 times what it would be with a length
            assert not clamped.any() or error(a[clamped], b[clamped]) < relative
            torch.testing.assert_close(a[~clamped], b[~clamped], rtol=relative, atol=absolute)


def test_empty_batch_and_no_classes() -> None:
    inputs = make(0, 9, 6, 24, 10)
    assert attended_scores(*inputs, backend="native").shape == (0, 6)
    assert dense_attention(*inputs[:2], backend="native").shape == (0, 6, 24)
    attended_scores(*inputs, backend="native").sum().backward()
    for t in inputs.present():
        assert t.grad is not None
        assert not t.grad.any()
    assert attended_scores(*make(2, 9, 0, 24, 10), backend="native").shape == (2, 0)


def test_no_region_raises() -> None:
    with pytest.raises(ValueError, match="T=0"):
        dense_attention(torch.zeros(2, 0, 8), torch.zeros(3, 8), backend="native")
    with pytest.raises(ValueError, match="d=9"):
        dense_attention(torch.zeros(2, 4, 8), torch.zeros(3, 9), backend="native")
