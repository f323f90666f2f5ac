"""The softmax of large logits under any scale, forward and backward."""

from __future__ import annotations

import pytest
import torch

from fastzsl.ops import attended_scores, dense_attention, native, reference


@pytest.mark.parametrize("magnitude", [1e6, 3e10, 1e25])
@pytest.mark.parametrize("scale", [0.3, -0.3, 1.7, 1e-3, 0.0])
def test_large_logits_times_a_scale_that_is_no_power_of_two(
    isa: str, magnitude: float, scale: float, seed: int
) -> None:
    regions, queries = torch.randn(2, 49, 16), magnitude * torch.randn(20, 16)
    attended, attention = dense_attention(
        regions, queries, scale=scale, return_attention=True, backend="native"
    )
    truth = reference.dense_attention(regions.double(), queries.double(), scale=scale, return_attention=True)
    assert isinstance(truth, tuple)
    assert attention.isfinite().all()
    assert attended.isfinite().all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 20))
    # Where the largest logit leads by much, float32 decides as float64 does.
    logits = (scale * (queries.double() @ regions.double().mT)).sort(-1).values
    clear = logits[..., -1] - logits[..., -2] > 1e-5 * logits.abs().amax(-1) + 30
    torch.testing.assert_close(attention[clear].double(), truth[1][clear], rtol=1e-5, atol=1e-5)
    assert clear.any() or abs(scale) * magnitude < 1e4


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_scores_and_gradients_of_large_logits_are_finite(isa: str, similarity: str, seed: int) -> None:
    inputs = [torch.randn(*shape) for shape in ((2, 49, 16), (20, 16), (6, 16), (6,), (20, 6))]
    inputs[1] *= 3e10
    for order in native.ORDERS[similarity]:
        scores, *saved = native.scores_forward(*inputs, similarity, 0.3, order, True)
        gradients = native.scores_backward(
            torch.ones(2, 20), *inputs, *saved, similarity, 0.3, order, [True] * 5
        )
        assert scores.isfinite().all(), order
        assert all(gradient.isfinite().all() for gradient in gradients), order


def test_infinite_and_undefined_logits_are_as_in_eager(isa: str) -> None:
    regions = torch.ones(1, 3, 1)
    regions[0, :, 0] = torch.tensor([1.0, 2.0, float("-inf")])
    queries = torch.tensor([[1.0], [-1.0], [0.0]])
    _, got = dense_attention(regions, queries, scale=0.3, return_attention=True, backend="native")
    _, eager = reference.dense_attention(regions, queries, scale=0.3, return_attention=True)
    torch.testing.assert_close(got, eager, equal_nan=True)


def test_scores_stay_those_of_the_reference(isa: str, seed: int) -> None:
    inputs = [torch.randn(*shape) for shape in ((2, 49, 16), (20, 16), (6, 16), (6,), (20, 6))]
    for scale in (0.3, -2.5):
        truth = reference.attended_scores(*(t.double() for t in inputs), scale=scale)
        got = attended_scores(*inputs, scale=scale, backend="native")
        torch.testing.assert_close(got.double(), truth, rtol=1e-5, atol=1e-5)
