"""The linear layer of the class side: the values and derivatives of PyTorch's, whoever computes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from fastzsl.ops import linear as module
from fastzsl.ops import native
from fastzsl.ops.linear import linear

needs_native = pytest.mark.skipif(bool(native.missing()), reason=f"no native kernels: {native.missing()}")


@pytest.fixture
def every_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The native product takes every call that it can; the shapes of its operands."""
    calls: list[tuple[int, ...]] = []
    product = native.product

    def counted(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        calls.append((*a.shape, b.shape[1]))
        return product(a, b, bias)

    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "FAST", tuple(native.loaded_module().isas()))
    monkeypatch.setattr(module, "made_by_intel", lambda: False)
    monkeypatch.setattr(native, "product", counted)
    return calls


def parts(C: int, k: int, n: int, bias: bool = True) -> tuple[torch.Tensor, ...]:
    shapes = ((C, k), (n, k), (n,)) if bias else ((C, k), (n, k))
    return tuple(torch.randn(shape, requires_grad=True) for shape in shapes)


@needs_native
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("C", "k", "n"), [(1, 1, 1), (30, 20, 512), (71, 1300, 70), (5, 2100, 33), (0, 4, 3)]
)
def test_values_and_gradients_are_as_exact_as_pytorchs(
    every_call: list[tuple[int, ...]], seed: int, C: int, k: int, n: int, bias: bool
) -> None:
    tensors = parts(C, k, n, bias)
    upstream = torch.randn(C, n)

    def all_of(function, inputs, grad):  # type: ignore[no-untyped-def]
        y = function(*inputs)
        return [y, *torch.autograd.grad(y, inputs, grad)]

    exact = [t.detach().double().requires_grad_() for t in tensors]
    truth = all_of(F.linear, exact, upstream.double())
    eager = all_of(F.linear, tensors, upstream)
    ours = all_of(linear, tensors, upstream)
    assert len(every_call) == 3, "value, and gradients of x and W"
    for name, found, plain, wanted in zip(("y", "dx", "dW", "db"), ours, eager, truth):
        assert found.shape == wanted.shape
        size = wanted.norm().clamp_min(1e-30)
        mine, theirs = (((t.double() - wanted).norm() / size).item() for t in (found, plain))
        assert mine <= 2 * theirs + 2e-7, f"{name}: {mine:.1e}, PyTorch's {theirs:.1e}"


@needs_native
def test_any_strides_and_any_number_of_threads(every_call: list[tuple[int, ...]], seed: int) -> None:
    x, weight = torch.randn(60, 90)[::2, ::3], torch.randn(64, 40).mT[:30].mT
    wanted = F.linear(x[:, :30], weight)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(linear(x[:, :30], weight))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert len(every_call) == 3


@needs_native
def test_derivatives_of_every_kind(every_call: list[tuple[int, ...]], seed: int) -> None:
    x, weight, bias = parts(4, 5, 3)

    def f(function):  # type: ignore[no-untyped-def]
        return lambda x, weight: function(x, weight, bias).sin().sum()

    for derive in (
        lambda g: torch.func.grad(g, (0, 1))(x, weight),
        lambda g: torch.func.hessian(g, 0)(x, weight),
        lambda g: torch.func.jvp(g, (x, weight), (torch.ones_like(x), torch.ones_like(weight)))[1],
        lambda g: torch.func.vmap(g, (0, None))(torch.stack([x, 2 * x]), weight),
        lambda g: torch.autograd.functional.hessian(lambda x: g(x, weight), x),
    ):
        torch.testing.assert_close(derive(f(linear)), derive(f(F.linear)), rtol=1e-4, atol=1e-5)
    gradient = torch.autograd.grad(f(linear)(x, weight), x, create_graph=True)[0]
    second = torch.autograd.grad(gradient.square().sum(), (x, weight))
    plain = torch.autograd.grad(f(F.linear)(x, weight), x, create_graph=True)[0]
    torch.testing.assert_close(
        second, torch.autograd.grad(plain.square().sum(), (x, weight)), rtol=1e-4, atol=1e-5
    )
    assert every_call, "the first pass runs on the kernels"


@needs_native
def test_the_penalty_of_a_critic_and_third_derivatives_run_on_the_kernels(
    every_call: list[tuple[int, ...]], seed: int
) -> None:
    """As in the gradient penalty of a GAN: the gradient of a gradient's norm."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in parts(6, 9, 7))
    last = torch.randn(7)

    def of(function, inputs):  # type: ignore[no-untyped-def]
        calls = len(every_call)
        D = (function(*inputs).sigmoid() @ last.to(inputs[0])).sum()
        (slope,) = torch.autograd.grad(D, inputs[0], create_graph=True)
        (second,) = torch.autograd.grad((slope.norm(dim=1) - 1).square().mean(), inputs[1], create_graph=True)
        return [second, *torch.autograd.grad(second.square().sum(), inputs)], len(every_call) - calls

    wanted, none = of(F.linear, (x, weight, bias))
    found, calls = of(linear, [t.detach().float().requires_grad_() for t in (x, weight, bias)])
    for mine, exact in zip(found, wanted):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-3, atol=1e-5)
    assert (none, calls >= 10) == (0, True), calls


@needs_native
def test_other_types_autocast_and_the_eager_backend_are_pytorchs(
    every_call: list[tuple[int, ...]], seed: int
) -> None:
    x, weight, bias = parts(4, 5, 3)
    assert torch.equal(linear(x, weight, bias, "eager"), F.linear(x, weight, bias))
    doubles = [t.double() for t in (x, weight, bias)]
    assert torch.equal(linear(*doubles), F.linear(*doubles))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    assert torch.equal(linear(x[0], weight, bias), F.linear(x[0], weight, bias))
    assert not every_call


@needs_native
def test_on_intel_pytorchs_own_library_computes_unless_the_kernels_are_named(
    every_call: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(module, "made_by_intel", lambda: True)
    x, weight, bias = parts(4, 5, 3)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert not every_call
    linear(x, weight, bias, "native")
    assert len(every_call) == 1


def test_a_small_call_is_pytorchs(seed: int) -> None:
    x, weight, bias = parts(4, 5, 3)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


@needs_native
def test_gradients_that_are_one_row_or_one_column_repeated(
    every_call: list[tuple[int, ...]], seed: int
) -> None:
    """As the backward pass of a sum gives them: a stride of 0 beside one of 1."""
    x, weight, _ = parts(40, 50, 70)
    for factor in (torch.randn(70), torch.randn(40, 1)):
        grads = [
            torch.autograd.grad((f(x, weight) * factor).sum(d).sum(), (x, weight))
            for f in (linear, F.linear)
            for d in (0, 1)
        ]
        torch.testing.assert_close(grads[0], grads[2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grads[1], grads[3], rtol=1e-4, atol=1e-4)
    for shape in ((40, 1), (1, 70)):
        repeated = torch.randn(shape).expand(40, 70)
        torch.testing.assert_close(native.product(repeated, weight), repeated @ weight, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(native.product(repeated.mT, x), repeated.mT @ x, rtol=1e-4, atol=1e-4)
