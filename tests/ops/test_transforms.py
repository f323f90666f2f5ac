"""Every way of differentiating gives the derivatives of the reference in float64, through every backend."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastzsl.ops import Call, attended_scores, backends, dense_attention, dispatch, explain, reference

BACKENDS = ["auto", "eager", pytest.param("native", marks=pytest.mark.skipif(
    not backends()["native"], reason=str(backends()["native"])))]  # fmt: skip
if os.environ.get("TRITON_INTERPRET") == "1":  # see tests/kernels/test_triton_interpreter.py
    BACKENDS.append("triton")
SIMILARITIES = ["cosine", "dot"]
B, T, C, d, m = 3, 5, 6, 8, 4

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def draw() -> tuple[Tensor, ...]:
    return tuple(torch.randn(s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m)))


def close(found: object, truth: object, size: float = 0.0) -> None:
    """Within 1e-4 of the largest number or of `size`: float32 rounds second derivatives of these sizes to 1e-6."""
    found, truth = (torch.utils._pytree.tree_leaves(x) for x in (found, truth))
    assert len(found) == len(truth) > 0
    for a, b in zip(found, truth):
        largest = max(size, float(b.detach().abs().max()))
        assert largest > 1e-3
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-4 * largest)


TRANSFORMS: dict[str, Callable[[Callable, tuple[Tensor, ...], tuple[Tensor, ...]], object]] = {
    "grad": lambda f, x, v: torch.func.grad(lambda *a: f(*a).sin().sum(), tuple(range(5)))(*x),
    "vjp": lambda f, x, v: torch.func.vjp(f, *x)[1](torch.linspace(-1, 1, B * C, dtype=x[0].dtype).view(B, C)),
    "jvp": lambda f, x, v: torch.func.jvp(f, x, v),
    "linearize": lambda f, x, v: torch.func.linearize(f, *x)[1](*v),
    "vmap over images": lambda f, x, v: torch.func.vmap(lambda r: f(r[None], *x[1:]))(x[0]),
    "vmap over queries": lambda f, x, v: torch.func.vmap(lambda q: f(x[0], q, *x[2:]))(torch.stack([x[1], v[1]])),
    "gradients of each image": lambda f, x, v: torch.func.vmap(
        torch.func.grad(lambda q, r: f(r[None], q, *x[2:]).sin().sum()), (None, 0))(x[1], x[0]),
    "jacrev": lambda f, x, v: torch.func.jacrev(f, (1, 2))(*x),
    "jacfwd": lambda f, x, v: torch.func.jacfwd(f, (0, 3))(*x),
    "hessian": lambda f, x, v: torch.func.hessian(lambda w: f(*x[:2], w, *x[3:]).sin().sum())(x[2]),
    "autograd.functional.jacobian": lambda f, x, v: torch.autograd.functional.jacobian(
        lambda q: f(x[0], q, *x[2:]), x[1], vectorize=True),
    "autograd.functional.jvp": lambda f, x, v: torch.autograd.functional.jvp(f, x, v),
}  # fmt: skip


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_scores(transform: str, similarity: str, backend: str, seed: int) -> None:
    inputs, tangents = draw(), draw()
    found = TRANSFORMS[transform](
        lambda *a: attended_scores(*a, similarity=similarity, scale=0.7, backend=backend), inputs, tangents
    )
    truth = TRANSFORMS[transform](
        lambda *a: reference.attended_scores(*a, similarity=similarity, scale=0.7),
        tuple(t.double() for t in inputs),
        tuple(t.double() for t in tangents),
    )
    close(found, truth)


@pytest.mark.parametrize("transform", ["jvp", "vjp", "vmap", "jacfwd", "jacrev"])
def test_attention(transform: str, backend: str, seed: int) -> None:
    def run(function: Callable, dtype: torch.dtype) -> object:
        (regions, queries), (tangent, other) = (tuple(t.to(dtype) for t in x) for x in (inputs, tangents))
        if transform == "jvp":
            return torch.func.jvp(function, (regions, queries), (tangent, other))
        if transform == "vjp":
            outputs, pull = torch.func.vjp(function, regions, queries)
            return pull(tuple(o.detach().sin() for o in outputs))
        if transform == "vmap":
            return torch.func.vmap(lambda r: function(r[None], queries))(regions)
        jacobian = torch.func.jacfwd if transform == "jacfwd" else torch.func.jacrev
        return jacobian(function, 1)(regions, queries)

    inputs, tangents = draw()[:2], draw()[:2]
    found = run(lambda *a: dense_attention(*a, return_attention=True, backend=backend), torch.float32)
    truth = run(lambda *a: reference.dense_attention(*a, return_attention=True), torch.float64)
    close(found, truth)


@pytest.mark.parametrize("which", range(5))
def test_dual_tensors(which: int, backend: str, seed: int) -> None:
    """A tangent on any one argument, also where another one needs a gradient."""
    inputs, tangents = draw(), draw()

    def tangent(function: Callable, dtype: torch.dtype) -> Tensor:
        with forward_ad.dual_level():
            arguments = [t.to(dtype).requires_grad_() for t in inputs]
            arguments[which] = forward_ad.make_dual(inputs[which].to(dtype), tangents[which].to(dtype))
            return forward_ad.unpack_dual(function(*arguments)).tangent

    found = tangent(lambda *a: attended_scores(*a, backend=backend), torch.float32)
    close(found, tangent(reference.attended_scores, torch.float64))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_batch_of_gradients_at_once(similarity: str, backend: str, seed: int) -> None:
    upstream = torch.randn(4, B, C)

    def gradients(function: Callable, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        return torch.autograd.grad(
            function(*leaves, similarity=similarity), leaves, upstream.to(dtype), is_grads_batched=True
        )

    inputs = draw()
    found = gradients(lambda *a, **k: attended_scores(*a, **k, backend=backend), torch.float32)
    close(found, gradients(reference.attended_scores, torch.float64))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_learned_temperature_gets_its_gradient(
    shape: tuple[int, ...], similarity: str, backend: str, seed: int
) -> None:
    """Of both ops, beside and without the gradients of other arguments, and in half precision."""
    inputs = draw()

    def losses(scores: Callable, attend: Callable, tensors: tuple[Tensor, ...], scale: Tensor) -> Tensor:
        attended, attention = attend(*tensors[:2], scale=scale, return_attention=True)
        return scores(*tensors, similarity=similarity, scale=scale).sin().sum() + (
            attended.sin().sum() + attention.square().sum()
        )

    exact = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    doubles = tuple(t.double().requires_grad_() for t in inputs)
    truth = torch.autograd.grad(
        losses(reference.attended_scores, reference.dense_attention, doubles, exact), (exact, *doubles)
    )
    for needs_others in (False, True):
        scale = torch.full(shape, 0.8, requires_grad=True)
        singles = tuple(t.clone().requires_grad_(needs_others) for t in inputs)
        found = torch.autograd.grad(
            losses(
                lambda *a, **k: attended_scores(*a, **k, backend=backend),
                lambda *a, **k: dense_attention(*a, **k, backend=backend),
                singles,
                scale,
            ),
            (scale, *singles) if needs_others else (scale,),
        )
        # The scale's gradient is one sum in which terms of either sign may leave little.
        close(found, truth[: len(found)], size=max(float(t.abs().max()) for t in truth))
    half = tuple(t.bfloat16() for t in inputs)
    scores = attended_scores(*half, similarity=similarity, scale=scale, backend=backend)
    assert scores.dtype == torch.bfloat16
    (of_half,) = torch.autograd.grad(scores.float().sum(), scale)
    assert of_half.dtype == torch.float32
    assert of_half.shape == shape


def test_a_module_with_a_learned_temperature_trains(backend: str, seed: int) -> None:
    from fastzsl import FusedDenseAttention

    attention = FusedDenseAttention(backend=backend)
    attention.scale = torch.nn.Parameter(torch.tensor(1.0))  # type: ignore[assignment]
    regions, queries = torch.randn(4, 9, 512), torch.randn(10, 512) / 512**0.5
    with torch.no_grad():
        wanted = dense_attention(regions, queries, scale=3.0)
    optimiser = torch.optim.Adam(attention.parameters(), lr=0.1)
    for _ in range(8 if backend == "triton" else 100):  # the interpreter takes two seconds a step
        optimiser.zero_grad()
        (attention(regions, queries) - wanted).square().sum().backward()
        optimiser.step()
    assert abs(float(attention.scale.detach()) - 3) < (1.6 if backend == "triton" else 0.1)


def test_a_scale_of_several_numbers_is_refused(backend: str) -> None:
    with pytest.raises(
        ValueError, match=r"scale has shape \(2,\); wanted a number or a tensor of one number"
    ):
        dense_attention(*draw()[:2], scale=torch.ones(2), backend=backend)


def test_auto_can_tell_why_it_takes_eager(backend: str) -> None:
    call = Call("attended_scores", torch.device("cpu"), torch.float32, 32, 49, 200, 512, 85, "cosine")
    name = dispatch.resolve(backend, call)
    if name == "native":
        assert explain(call)["native"] == []
        assert dispatch.resolve(backend, call._replace(transformed=True)) == "eager"
        assert "eager formulas" in explain(call._replace(transformed=True))["native"][0]


def test_meta_tensors_have_shapes(backend: str) -> None:
    inputs = tuple(t.to("meta") for t in draw())
    if backend in ("native", "triton"):
        with pytest.raises(RuntimeError, match=r"the tensors are on meta|device is meta"):
            attended_scores(*inputs, backend=backend)
        return
    for similarity in SIMILARITIES:
        assert attended_scores(*inputs, similarity=similarity, backend=backend).shape == (B, C)
    attended, attention = dense_attention(
        *inputs[:2], scale=torch.ones((), device="meta"), return_attention=True, backend=backend
    )
    assert attended.is_meta
    assert attended.shape == (B, C, d)
    assert attention.shape == (B, C, T)
