"""The swaps of docs/drop-in.md: the same outputs and gradients as the einsum formulas, and what to use for what the ops
leave out."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import attended_scores, dense_attention, reference

_path = Path(__file__).parents[2] / "bench" / "drop_in.py"
_spec = importlib.util.spec_from_file_location("drop_in", _path)
assert _spec is not None
assert _spec.loader is not None
drop_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(drop_in)

B, T, C, d = 3, 10, 6, 32


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-6))


@pytest.mark.parametrize("shape", [(4, 49, 64, 20, 30, 10), (8, 16, 128, 60, 24, 50)])
@pytest.mark.parametrize("name", drop_in.MODELS)
def test_the_swap_changes_nothing(name: str, shape: tuple[int, ...], seed: int) -> None:
    """To 5e-7 of each tensor's norm, or to four times einsum's own distance from float64 where that is more."""
    plain, fused = drop_in.MODELS[name]
    inputs = drop_in.inputs_of(name, drop_in.Shape(*shape))
    truth = drop_in.step(plain, [t.detach().double().requires_grad_() for t in inputs])
    results = zip(drop_in.step(fused, inputs), drop_in.step(plain, inputs), truth)
    for number, (found, wanted, exact) in enumerate(results):
        if exact.norm() < 1e-9 * truth[0].norm():
            continue  # the bias of TransZero's keys: no gradient but rounding
        assert distance(found, exact) <= max(5e-7, 4 * distance(wanted, exact)), number


def test_the_identity_of_the_page(seed: int) -> None:
    V, W1, W2 = torch.randn(C, 5), torch.randn(5, d), torch.randn(5, d)
    X = torch.randn(B, T, d)
    attention = torch.einsum("nv,vf,btf->bnt", V, W2, X).softmax(-1)
    value = torch.einsum("nv,vf,btf->bnt", V, W1, X)
    found = attended_scores(X, V @ W2, W1, None, V, similarity="dot")
    assert distance(found, (attention * value).sum(-1)) <= 2e-6


def test_a_temperature_of_each_class(seed: int) -> None:
    X, H, t = torch.randn(B, T, d), torch.randn(C, d), torch.rand(C).requires_grad_()
    wanted = (t[:, None] * (H @ X.mT)).softmax(-1) @ X
    found = dense_attention(X, H * t[:, None])
    assert distance(found, wanted) <= 2e-6
    assert distance(*(torch.autograd.grad(a.square().sum(), t)[0] for a in (found, wanted))) <= 1e-5


def test_a_mask_and_a_bias_of_the_regions(seed: int) -> None:
    """One more column: 0 for a region that counts and -1e30 for one that does not, or any bias."""
    X, H, W, K = torch.randn(B, T, d), torch.randn(C, d), torch.randn(5, d), torch.randn(C, 5)
    mask = torch.rand(B, T) < 0.6
    mask[:, 0] = True
    masked = torch.cat([X, torch.zeros(B, T, 1).masked_fill(~mask[..., None], -1e30)], -1)
    ones = torch.cat([H, torch.ones(C, 1)], 1)
    logits = (H @ X.mT).masked_fill(~mask[:, None], -math.inf)
    for backend in ("eager", "auto", "native") if B * T > 1 and _has_native() else ("eager",):
        attended, attention = dense_attention(masked, ones, return_attention=True, backend=backend)
        assert not attention[~mask[:, None].expand_as(attention)].any()
        assert distance(attended[..., :d], logits.softmax(-1) @ X) <= 2e-6
        wider = torch.cat([W, torch.zeros(5, 1)], 1)
        scores = attended_scores(masked, ones, wider, None, K, backend=backend)
        alone = [reference.attended_scores(x[m][None], H, W, None, K) for x, m in zip(X, mask)]
        assert distance(scores, torch.cat(alone)) <= 2e-6
    bias = torch.randn(B, T)
    found = dense_attention(torch.cat([X, bias[..., None]], -1), ones)[..., :d]
    assert distance(found, (H @ X.mT + bias[:, None]).softmax(-1) @ X) <= 2e-6


def _has_native() -> bool:
    from fastzsl.ops import backends

    return bool(backends()["native"])


def test_heads_are_slices(seed: int) -> None:
    X, H, heads = torch.randn(B, T, d), torch.randn(C, d), 4
    found = torch.cat([dense_attention(x, h) for x, h in zip(X.chunk(heads, -1), H.chunk(heads, -1))], -1)
    split = X.unflatten(-1, (heads, -1)).transpose(1, 2)
    query = H.unflatten(-1, (heads, -1)).transpose(0, 1).expand(B, -1, -1, -1)
    wanted = F.scaled_dot_product_attention(query, split, split, scale=1.0)
    assert distance(found, wanted.transpose(1, 2).flatten(2)) <= 2e-6


def test_scaled_dot_product_attention_is_the_same_attention(seed: int) -> None:
    X, H = torch.randn(B, T, d), torch.randn(C, d)
    wanted = F.scaled_dot_product_attention(H.expand(B, -1, -1), X, X, scale=0.3)
    assert distance(dense_attention(X, H, scale=0.3), wanted) <= 2e-6
