"""The reference computes the paper's equations, in every order, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import eager, reference

SIMILARITIES = ("cosine", "dot")


def draw(B: int = 3, T: int = 5, C: int = 4, d: int = 6, m: int = 7, dtype: torch.dtype = torch.float64):  # type: ignore[no-untyped-def]
    return tuple(torch.randn(s, dtype=dtype) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m)))


def loop_from_the_paper(X: Tensor, H: Tensor, W: Tensor, b: Tensor, K: Tensor, scale: float, cosine: bool):  # type: ignore[no-untyped-def]
    """Equations 3 and 8 written one number at a time; X_i has regions as columns there, rows here."""
    B, T, d = X.shape
    C, m = K.shape
    attended, scores = torch.zeros(B, C, d, dtype=X.dtype), torch.zeros(B, C, dtype=X.dtype)
    for i in range(B):
        for c in range(C):
            logits = [scale * sum(float(X[i, t, j] * H[c, j]) for j in range(d)) for t in range(T)]
            total = sum(math.exp(v) for v in logits)
            a = [math.exp(v) / total for v in logits]
            x = [sum(a[t] * float(X[i, t, j]) for t in range(T)) for j in range(d)]
            e = [float(b[r]) + sum(float(W[r, j]) * x[j] for j in range(d)) for r in range(m)]
            s = sum(e[r] * float(K[c, r]) for r in range(m))
            if cosine:
                s /= math.sqrt(sum(v * v for v in e)) * math.sqrt(sum(float(v) ** 2 for v in K[c]))
            attended[i, c] = torch.tensor(x, dtype=X.dtype)
            scores[i, c] = s
    return attended, scores


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_equations_3_and_8_as_loops(seed: int, similarity: str) -> None:
    X, H, W, b, K = draw()
    attended, scores = loop_from_the_paper(X, H, W, b, K, 0.7, similarity == "cosine")
    torch.testing.assert_close(reference.dense_attention(X, H, scale=0.7), attended, rtol=0, atol=1e-12)
    found = reference.attended_scores(X, H, W, b, K, similarity=similarity, scale=0.7)
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_all_orders_are_the_same_function(seed: int, similarity: str, with_bias: bool) -> None:
    X, H, W, b, K = draw(4, 49, 11, 32, 13)
    bias = b if with_bias else None
    truth = reference.attended_scores(X, H, W, bias, K, similarity=similarity)
    for order in eager.ORDERS[similarity]:
        found = eager.attended_scores(X, H, W, bias, K, similarity=similarity, order=order)
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-10, msg=order)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradcheck_scores(seed: int, similarity: str) -> None:
    inputs = tuple(t.requires_grad_() for t in draw(2, 3, 3, 4, 5))
    assert torch.autograd.gradcheck(
        lambda *a: reference.attended_scores(*a, similarity=similarity, scale=1.3), inputs
    )


def test_gradcheck_attention(seed: int) -> None:
    inputs = tuple(t.requires_grad_() for t in draw(2, 3, 3, 4, 5)[:2])
    assert torch.autograd.gradcheck(lambda *a: reference.dense_attention(*a, return_attention=True), inputs)


@pytest.mark.parametrize(
    ("similarity", "order"), [(s, order) for s in SIMILARITIES for order in eager.ORDERS[s]]
)
def test_gradients_of_every_order_agree(seed: int, similarity: str, order: str) -> None:
    inputs = [t.requires_grad_() for t in draw(2, 7, 5, 8, 6)]
    weights = torch.randn(2, 5, dtype=torch.float64)
    truth = torch.autograd.grad(
        (reference.attended_scores(*inputs, similarity=similarity) * weights).sum(), inputs
    )
    found = torch.autograd.grad(
        (eager.attended_scores(*inputs, similarity=similarity, order=order) * weights).sum(), inputs
    )
    for a, b in zip(found, truth):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_attention_rows_sum_to_one_and_equal_logits_average(seed: int) -> None:
    X = torch.randn(2, 49, 8)
    attended, attention = reference.dense_attention(X, torch.zeros(3, 8), return_attention=True)
    torch.testing.assert_close(attention, torch.full((2, 3, 49), 1 / 49))
    torch.testing.assert_close(attended, X.mean(1, keepdim=True).expand(2, 3, 8), atol=1e-6, rtol=0)


def test_cosine_of_zero_decoding_is_clamped_like_normalize() -> None:
    X, H, W, b, K = (torch.zeros(s) for s in ((1, 2, 3), (2, 3), (4, 3), (4,), (2, 4)))
    for order in eager.ORDERS["cosine"]:
        assert torch.equal(eager.attended_scores(X, H, W, b, K, order=order), torch.zeros(1, 2))
    assert torch.equal(F.normalize(torch.zeros(4), dim=0), torch.zeros(4))
