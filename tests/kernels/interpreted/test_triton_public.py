"""Backend "triton" as users reach it: the public functions, autograd, compile, autocast and opcheck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastzsl import ops
from fastzsl.ops import kernel_ops, reference

SIMILARITIES = ("dot", "cosine")


def _inputs(
    B: int = 3, T: int = 49, C: int = 20, d: int = 64, m: int = 12, grad: bool = True
) -> list[Tensor]:
    torch.manual_seed(torch.seed() % 2**31)
    print(f"seed {torch.initial_seed()}")
    shapes = ((B, T, d), (C, d), (m, d), (m,), (C, m))
    return [torch.randn(shape).mul_(0.3).requires_grad_(grad) for shape in shapes]


def _true_gradients(inputs: list[Tensor | None], similarity: str, grad: Tensor) -> list[Tensor]:
    exact = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    scores = reference.attended_scores(*exact, similarity=similarity)  # type: ignore[arg-type]
    return list(torch.autograd.grad(scores, [t for t in exact if t is not None], grad.double()))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("C", [4, 20], ids=["few classes", "classes"])
def test_scores_and_gradients(similarity: str, C: int) -> None:
    inputs = _inputs(C=C, m=40 if C == 4 else 12)  # few classes: cosine takes the order "attend"
    grad = torch.randn(3, C)
    scores = ops.attended_scores(*inputs, similarity=similarity, backend="triton")
    torch.testing.assert_close(
        scores.double(), reference.attended_scores(*(t.double() for t in inputs), similarity=similarity),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    for found, true in zip(
        torch.autograd.grad(scores, inputs, grad), _true_gradients(inputs, similarity, grad)
    ):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", ["expanded", "transposed", "from cat"])
def test_gradients_that_arrive_with_odd_strides(similarity: str, kind: str) -> None:
    inputs = _inputs()
    scores = ops.attended_scores(*inputs, similarity=similarity, backend="triton")
    if kind == "expanded":
        grad = torch.randn(3, 1).expand(3, 20)
    elif kind == "transposed":
        grad = torch.randn(20, 3).t()
    else:
        grad = torch.randn(3, 45)[:, 5:25]
    for found, true in zip(
        torch.autograd.grad(scores, inputs, grad), _true_gradients(inputs, similarity, grad)
    ):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


def test_attended_gradient_that_arrives_expanded() -> None:
    regions, queries, *_ = _inputs()
    grad = torch.randn(1, 1, 64).expand(3, 20, 64)
    exact = [t.detach().double().requires_grad_() for t in (regions, queries)]
    found = torch.autograd.grad(
        ops.dense_attention(regions, queries, backend="triton"), (regions, queries), grad
    )
    true = torch.autograd.grad(reference.dense_attention(*exact), exact, grad.double())
    for f, t in zip(found, true):
        torch.testing.assert_close(f.double(), t, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_no_bias(similarity: str) -> None:
    inputs: list[Tensor | None] = list(_inputs())
    inputs[3] = None
    present = [t for t in inputs if t is not None]
    grad = torch.randn(3, 20)
    scores = ops.attended_scores(*inputs, similarity=similarity, backend="triton")  # type: ignore[arg-type]
    for found, true in zip(
        torch.autograd.grad(scores, present, grad), _true_gradients(inputs, similarity, grad)
    ):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("wanted", range(5))
def test_each_gradient_alone(similarity: str, wanted: int) -> None:
    inputs = _inputs(grad=False)
    inputs[wanted].requires_grad_()
    grad = torch.randn(3, 20)
    scores = ops.attended_scores(*inputs, similarity=similarity, backend="triton")
    (found,) = torch.autograd.grad(scores, [inputs[wanted]], grad)
    true = _true_gradients(inputs, similarity, grad)[wanted]
    torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["prototype", "project", "attend"])
def test_frozen_regions_get_no_gradient_computed(order: str) -> None:
    similarity = "dot" if order == "prototype" else "cosine"
    inputs = _inputs(grad=False)
    saved = kernel_ops.scores_forward(*inputs, similarity, 1.0, order, True, "triton")
    grads = kernel_ops.scores_backward(
        torch.randn(3, 20),
        *inputs,
        *saved[1:],
        similarity,
        1.0,
        order,
        [False, True, True, True, True],
        "triton",
    )
    assert [g.numel() for g in grads] == [0, *(t.numel() for t in inputs[1:])]


def test_results_repeat_bit_for_bit() -> None:
    inputs = _inputs()

    def run() -> list[Tensor]:
        scores = ops.attended_scores(*inputs, backend="triton")
        return [scores, *torch.autograd.grad(scores.sum(), inputs)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run()))


@pytest.mark.parametrize("empty", ["B", "C"])
def test_no_images_or_no_classes(empty: str) -> None:
    inputs = _inputs(**{empty: 0})
    shape = (0, 20) if empty == "B" else (3, 0)
    for similarity in SIMILARITIES:
        scores = ops.attended_scores(*inputs, similarity=similarity, backend="triton")
        assert scores.shape == shape
        assert all(not g.any() for g in torch.autograd.grad(scores.sum(), inputs))


def test_rows_of_zeros_take_the_clamp_of_normalize() -> None:
    inputs = _inputs()
    with torch.no_grad():
        inputs[0][0] = 0.0
        inputs[3].zero_()
        inputs[4][2] = 0.0
    grad = torch.randn(3, 20)
    scores = ops.attended_scores(*inputs, similarity="cosine", backend="triton")
    assert (scores[0] == 0).all()
    assert (scores[:, 2] == 0).all()
    found = torch.autograd.grad(scores, inputs, grad)
    for f, t in zip(found, _true_gradients(inputs, "cosine", grad)):
        torch.testing.assert_close(f.double(), t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    inputs = _inputs()
    with torch.autocast("cpu", dtype):
        scores = ops.attended_scores(*inputs, backend="triton")
    assert scores.dtype == dtype
    torch.testing.assert_close(scores.float(), reference.attended_scores(*inputs), rtol=0.03, atol=0.03)
    scores.float().sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in inputs)


@pytest.mark.filterwarnings("ignore:.*lru_cache.*")
def test_compiles_whole() -> None:
    inputs = _inputs()

    def both(regions: Tensor, queries: Tensor, *rest: Tensor) -> Tensor:
        scores = ops.attended_scores(regions, queries, *rest, backend="triton")
        return scores + ops.dense_attention(regions, queries, backend="triton").mean(-1)

    whole = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*inputs), both(*inputs))
    for a, b in zip(
        torch.autograd.grad(whole(*inputs).sum(), inputs), torch.autograd.grad(both(*inputs).sum(), inputs)
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("order", ["prototype", "project", "attend"])
def test_opcheck_of_the_scores(order: str) -> None:
    similarity = "dot" if order == "prototype" else "cosine"
    inputs = _inputs(T=7, grad=False)
    torch.library.opcheck(kernel_ops.scores_forward, (*inputs, similarity, 1.0, order, True, "triton"))
    saved = kernel_ops.scores_forward(*inputs, similarity, 1.0, order, True, "triton")
    torch.library.opcheck(
        kernel_ops.scores_backward,
        (torch.randn(3, 20), *inputs, *saved[1:], similarity, 1.0, order, [True] * 5, "triton"),
    )


def test_opcheck_of_the_attention() -> None:
    regions, queries, *_ = _inputs(T=7, grad=False)
    torch.library.opcheck(kernel_ops.attention_forward, (regions, queries, 1.0, True, "triton"))
    attended, attention = kernel_ops.attention_forward(regions, queries, 1.0, True, "triton")
    arguments = (torch.randn_like(attended), None, regions, queries, attention, 1.0, [True, True], "triton")
    torch.library.opcheck(kernel_ops.attention_backward, arguments)


def test_float64_is_refused_with_its_reason() -> None:
    inputs = [t.double() for t in _inputs()]
    with pytest.raises(RuntimeError, match=r"dtype is torch\.float64; wanted float32, float16 or bfloat16"):
        ops.attended_scores(*inputs, backend="triton")
