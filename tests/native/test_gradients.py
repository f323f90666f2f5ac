"""Gradients: strided upstream gradients, frozen inputs, repeatability bit for bit, second derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from native_inputs import error, make
from torch import Tensor

from fastzsl import _native
from fastzsl.ops import attended_scores, dense_attention, native, reference

UPSTREAM: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda s: s.sum(),
    "transposed": lambda s: (s.T.contiguous() * torch.linspace(0, 1, s.numel()).view_as(s.T)).sum(),
    "concatenated": lambda s: (torch.cat([s, s * 2], 1).square()).sum(),
    "permuted view": lambda s: (s.mT * torch.linspace(-1, 1, s.numel()).view_as(s.mT)).sum(),
}


@pytest.mark.parametrize("loss", UPSTREAM)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_strided_upstream_gradients(loss: str, similarity: str, seed: int) -> None:
    inputs = make(3, 13, 30, 40, 11)
    exact = inputs.double()
    got = torch.autograd.grad(
        UPSTREAM[loss](attended_scores(*inputs, similarity=similarity, backend="native")),
        inputs.present(),  # type: ignore[arg-type]
    )
    want = torch.autograd.grad(
        UPSTREAM[loss](reference.attended_scores(*exact, similarity=similarity)), exact.present()
    )
    for a, b in zip(got, want):
        assert error(a, b) < 5e-5


def test_strided_upstream_gradients_of_attention(seed: int) -> None:
    inputs = make(3, 13, 30, 40, 11)
    exact = inputs.double()
    weights = torch.randn(40, 30, 3)

    def loss(attended: Tensor, attention: Tensor) -> Tensor:
        return (attended.permute(2, 1, 0) * weights).sum() + (attention[:1].expand(3, -1, -1) ** 2).sum()

    got = torch.autograd.grad(
        loss(*dense_attention(*inputs[:2], return_attention=True, backend="native")), inputs[:2]
    )
    want = torch.autograd.grad(loss(*reference.dense_attention(*exact[:2], return_attention=True)), exact[:2])
    for a, b in zip(got, want):
        assert error(a, b) < 5e-5


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_no_gradient_that_nobody_needs(similarity: str, seed: int) -> None:
    B, T, C, d, m = 2, 9, 12, 20, 7
    inputs = [t.detach() for t in make(B, T, C, d, m)]
    for order in native.ORDERS[similarity]:
        _, attention, values = native.scores_forward(*inputs, similarity, 1.0, order, True)
        full = native.scores_backward(
            torch.ones(B, C), *inputs, attention, values, similarity, 1.0, order, [True] * 5
        )
        for wanted in range(5):
            needs = [i == wanted for i in range(5)]
            some = native.scores_backward(
                torch.ones(B, C), *inputs, attention, values, similarity, 1.0, order, needs
            )
            assert torch.equal(some[wanted], full[wanted])
            assert all(g.numel() == 0 for i, g in enumerate(some) if i != wanted)


def test_bit_for_bit_for_any_number_of_threads(isa: str, seed: int) -> None:
    inputs = [t.detach() for t in make(6, 49, 90, 200, 40)]

    def everything(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        results: list[Tensor] = []
        for similarity, orders in native.ORDERS.items():
            for order in orders:
                saved = native.scores_forward(*inputs, similarity, 1.0, order, True)
                results += saved
                results += native.scores_backward(
                    torch.ones(6, 90), *inputs, *saved[1:], similarity, 1.0, order, [True] * 5
                )
        attended, attention = native.attention_forward(*inputs[:2], 1.0, True)
        results += native.attention_backward(attended, None, *inputs[:2], attention, 1.0, [True, True])
        return results

    before = torch.get_num_threads()
    try:
        first = everything(1)
        for threads in (2, 2, 5):
            assert all(torch.equal(a, b) for a, b in zip(first, everything(threads)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_second_derivatives_are_exact(similarity: str, seed: int) -> None:
    inputs = make(2, 5, 4, 6, 3)
    exact = inputs.double()

    def penalty(scores: Tensor, regions: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(scores.sin().sum(), regions, create_graph=True)
        return grad.square().sum()

    got = torch.autograd.grad(
        penalty(attended_scores(*inputs, similarity=similarity, backend="native"), inputs.regions),
        inputs.weight,  # type: ignore[arg-type]
    )[0]
    want = torch.autograd.grad(
        penalty(reference.attended_scores(*exact, similarity=similarity), exact.regions), exact.weight
    )[0]
    assert error(got, want) < 1e-4


def test_large_results_are_not_shared(seed: int) -> None:
    """Memory of a large result is used again only once nobody sees it, not even through a view."""
    regions, queries = torch.randn(8, 7, 2048), torch.randn(160, 2048)
    first = dense_attention(regions, queries, backend="native")
    kept, view = first.clone(), first[3, 5].numpy()
    address = first.data_ptr()
    second = dense_attention(regions * 2, queries, backend="native")
    assert second.data_ptr() != address
    assert torch.equal(first, kept)
    del first
    third = dense_attention(regions * 3, queries, backend="native")
    assert third.data_ptr() != address
    assert (view == kept[3, 5].numpy()).all()
    del view, second, third
    assert _native.isa()
