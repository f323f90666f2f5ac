"""Both ops, forward and backward, are as close to float64 truth as eager PyTorch: error at most twice that of
the plain formulas in the same dtype, on every instruction set of this machine and in every order of contraction.
"""

from __future__ import annotations

import pytest
import torch
from native_inputs import Inputs, error, make

from fastzsl.ops import native, reference

SHAPES = [(3, 49, 40, 300, 33), (2, 196, 17, 130, 20), (9, 7, 70, 64, 5), (2, 50, 33, 1030, 85)]
ORDERS = [(similarity, order) for similarity, orders in native.ORDERS.items() for order in orders]
HALF_ULP = 2.0**-24


def within(got: torch.Tensor, eager: torch.Tensor, truth: torch.Tensor, name: str) -> None:
    ours, theirs = error(got, truth), error(eager, truth)
    floor = HALF_ULP if got.dtype == torch.float32 else 2.0**-9
    assert ours <= 2 * theirs + floor, f"{name}: error {ours:.2e}, eager's {theirs:.2e}"


def scores_and_gradients(inputs: Inputs, similarity: str, upstream: torch.Tensor) -> list[torch.Tensor]:
    scores = reference.attended_scores(*inputs, similarity=similarity)
    return [scores, *torch.autograd.grad(scores, inputs.present(), upstream.to(scores.dtype))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(("similarity", "order"), ORDERS)
def test_scores(isa: str, similarity: str, order: str, dtype: torch.dtype, seed: int) -> None:
    for number, (B, T, C, d, m) in enumerate(SHAPES):
        inputs = make(B, T, C, d, m, dtype=dtype, t_contiguous=number % 2 == 1, bias=number != 2)
        upstream = torch.randn(B, C).to(dtype)
        truth = scores_and_gradients(inputs.double(), similarity, upstream)
        eager = scores_and_gradients(inputs, similarity, upstream)
        with torch.no_grad():
            scores, attention, values = native.scores_forward(*inputs, similarity, 1.0, order, True)
            alone, _, _ = native.scores_forward(*inputs, similarity, 1.0, order, False)
            grads = native.scores_backward(
                upstream, *inputs, attention, values, similarity, 1.0, order, [True] * 5
            )
        within(alone, eager[0], truth[0], "scores")
        within(scores, eager[0], truth[0], "scores with saved attention")
        found = [grad for grad, t in zip(grads, inputs) if t is not None]
        for name, got, theirs, exact in zip(
            "XHWbK" if inputs.bias is not None else "XHWK", found, eager[1:], truth[1:]
        ):
            within(got, theirs, exact, f"d{name} at {(B, T, C, d, m)}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_attention(isa: str, dtype: torch.dtype, seed: int) -> None:
    for number, (B, T, C, d, m) in enumerate(SHAPES):
        inputs = make(B, T, C, d, m, dtype=dtype, t_contiguous=number % 2 == 1)
        exact, upstream = inputs.double(), [torch.randn(B, C, d).to(dtype), torch.randn(B, C, T).to(dtype)]
        truth = reference.dense_attention(*exact[:2], return_attention=True)
        eager = reference.dense_attention(*inputs[:2], return_attention=True)
        with torch.no_grad():
            ours = native.attention_forward(*inputs[:2], 1.0, True)
            grads = native.attention_backward(*upstream, *inputs[:2], ours[1], 1.0, [True, True])
        truth += torch.autograd.grad(truth, exact[:2], [g.double() for g in upstream])
        eager += torch.autograd.grad(eager, inputs[:2], upstream)
        for name, got, theirs, right in zip(
            ("attended", "attention", "dX", "dH"), (*ours, *grads), eager, truth
        ):
            within(got, theirs, right, f"{name} at {(B, T, C, d)}")
