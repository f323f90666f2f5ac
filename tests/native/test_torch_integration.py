"""opcheck, torch.compile, torch.export, autocast, and a training run that ends as eager's does."""

from __future__ import annotations

import pytest
import torch
from native_inputs import make
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastzsl.ops import attended_scores, dense_attention, kernel_ops, native, plan_scores
from fastzsl.ops.dispatch import Call


@pytest.mark.parametrize(
    ("similarity", "order"),
    [("dot", "prototype"), ("cosine", "attend"), ("cosine", "project"), ("dot", "attend")],
)
def test_opcheck_scores(similarity: str, order: str, seed: int) -> None:
    inputs = [t.detach() for t in make(2, 9, 12, 20, 7, t_contiguous=True)]
    torch.library.opcheck(kernel_ops.scores_forward, (*inputs, similarity, 1.0, order, True, "native"))
    saved = kernel_ops.scores_forward(*inputs, similarity, 1.0, order, True, "native")
    needs = [True, True, False, True, True]
    arguments = (torch.ones(2, 12), *inputs, *saved[1:], similarity, 1.0, order, needs, "native")
    torch.library.opcheck(kernel_ops.scores_backward, arguments)


def test_opcheck_attention(seed: int) -> None:
    regions, queries = (t.detach() for t in make(2, 9, 12, 20, 7)[:2])
    torch.library.opcheck(kernel_ops.attention_forward, (regions, queries, 1.0, True, "native"))
    attended, attention = kernel_ops.attention_forward(regions, queries, 1.0, True, "native")
    torch.library.opcheck(
        kernel_ops.attention_backward,
        (attended, None, regions, queries, attention, 1.0, [True, True], "native"),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("similarity", "m", "order"),
    [("dot", 70, "prototype"), ("cosine", 7, "project")],
)
def test_compiled_equals_eager_mode(similarity: str, m: int, order: str, seed: int) -> None:
    inputs = make(6, 9, 120, 20, m)
    assert plan_scores(6, 9, 120, 20, m, similarity, native.ORDERS[similarity]).order == order

    def step(*tensors: Tensor) -> Tensor:
        return attended_scores(*tensors, similarity=similarity, backend="native").sin().sum()

    compiled = torch.compile(step, fullgraph=True)
    got = torch.autograd.grad(compiled(*inputs), inputs.present())
    want = torch.autograd.grad(step(*inputs), inputs.present())
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_compiled_once_for_batches_of_any_size(seed: int) -> None:
    """The planner can be traced where B is a symbol, and its choice is made again where another one is cheaper."""

    def scores(*tensors: Tensor) -> Tensor:
        return attended_scores(*tensors, similarity="dot", backend="native")

    compiled = torch.compile(scores, fullgraph=True)  # from the second size on B is a symbol
    orders = set()
    for B in (6, 5, 4, 1):
        inputs = make(B, 9, 120, 20, 70)
        orders.add(plan_scores(B, 9, 120, 20, 70, "dot", native.ORDERS["dot"]).order)
        with torch.no_grad():
            torch.testing.assert_close(compiled(*inputs), scores(*inputs))
    assert len(orders) > 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_compiled_for_scales_that_vary(backend: str, seed: int) -> None:
    """A scale that is learnt or scheduled is a symbol from its second value on."""
    inputs = make(3, 9, 12, 20, 7)

    def both(scale: float) -> tuple[Tensor, Tensor]:
        scores = attended_scores(*inputs, scale=scale, backend=backend)
        return scores, dense_attention(*inputs[:2], scale=scale, backend=backend)

    compiled = torch.compile(both, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for scale in (0.5, 0.7, 2.0):
            torch.testing.assert_close(compiled(scale), both(scale))


def test_export_makes_one_node(seed: int) -> None:
    inputs = tuple(t.detach() for t in make(2, 9, 12, 20, 7))

    class Model(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return attended_scores(*tensors, backend="native")

    with torch.no_grad():
        program = torch.export.export(Model(), inputs)
    calls = [n for n in program.graph.nodes if n.op == "call_function" and "fastzsl" in str(n.target)]
    assert len(calls) == 1
    torch.testing.assert_close(program.module()(*inputs), attended_scores(*inputs, backend="native"))


def test_autocast_forward_and_backward(seed: int) -> None:
    inputs = make(3, 9, 12, 64, 7)
    with torch.autocast("cpu", torch.bfloat16):
        scores = attended_scores(*inputs, backend="native")
        attended = dense_attention(*inputs[:2], backend="native")
    assert scores.dtype == attended.dtype == torch.bfloat16
    (scores.float().sum() + attended.float().sum()).backward()
    for t in inputs.present():
        assert t.grad is not None
        assert t.grad.dtype == torch.float32
        assert t.grad.isfinite().all()


def test_training_ends_as_eager_does(seed: int) -> None:
    """Forty steps of Adam: losses within 1e-3 relative, weights within 2% of the way they went."""

    def train(backend: str) -> tuple[list[float], list[Tensor], list[Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(64, 9, 32, generator=generator)
        classes = torch.randn(10, 6, generator=generator)
        labels = torch.randint(10, (64,), generator=generator)
        encoder = (torch.randn(6, 32, generator=generator) * 0.1).requires_grad_()
        weight = (torch.randn(6, 32, generator=generator) * 0.1).requires_grad_()
        bias = torch.zeros(6, requires_grad=True)
        parameters = [encoder, weight, bias]
        start = [p.detach().clone() for p in parameters]
        optimiser = torch.optim.Adam(parameters, lr=1e-2)
        losses = []
        for _ in range(40):
            scores = attended_scores(features, classes @ encoder, weight, bias, classes, backend=backend)
            loss = torch.nn.functional.cross_entropy(10 * scores, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, [p.detach() for p in parameters], start

    losses, weights, start = train("native")
    eager_losses, eager_weights, _ = train("eager")
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(eager_losses), rtol=1e-3, atol=0)
    assert losses[-1] < 0.8 * losses[0]
    for a, b, s in zip(weights, eager_weights, start):
        assert (a - b).norm() <= 0.02 * (b - s).norm()


@pytest.mark.parametrize(
    ("op", "similarity", "B", "C", "d", "passed_over"),
    [
        ("dense_attention", "", 8, 1, 2048, True),
        ("dense_attention", "", 8, 10, 2048, False),
        ("attended_scores", "dot", 32, 10, 2048, True),
        ("attended_scores", "dot", 1, 200, 2048, True),
        ("attended_scores", "dot", 32, 50, 2048, False),
        ("attended_scores", "cosine", 8, 1, 2048, True),
        ("attended_scores", "cosine", 1, 10, 512, False),
        ("attended_scores", "dot", 1, 10, 512, False),
        ("dense_attention", "", 1, 10, 512, False),
        ("dense_attention", "", 1, 1, 2048, True),
        ("dense_attention", "", 32, 4, 2048, True),
    ],
)
def test_auto_keeps_to_the_crossover_table(
    op: str, similarity: str, B: int, C: int, d: int, passed_over: bool
) -> None:
    call = Call(op, torch.device("cpu"), torch.float32, B, 49, C, d, 85, similarity)
    assert bool(native.slower(call)) == passed_over


def test_auto_takes_few_classes_scored_by_dot_when_there_is_a_backward_pass() -> None:
    for C, needs_grad, passed_over in (
        (10, False, True),
        (10, True, False),
        (1, False, True),
        (1, True, True),
    ):
        call = Call(
            "attended_scores", torch.device("cpu"), torch.float32, 64, 49, C, 512, 85, "dot", needs_grad
        )
        assert bool(native.slower(call)) == passed_over


class Watch(TorchDispatchMode):
    """The names of the operators that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_ordinary_calls_pass_torch_library_by_and_watched_ones_do_not(seed: int) -> None:
    inputs = make(2, 9, 12, 20, 7)

    def results() -> list[Tensor]:
        scores = attended_scores(*inputs, backend="native")
        attended = dense_attention(*inputs[:2], backend="native")
        grads = torch.autograd.grad(scores.sum() + attended.sum(), inputs.present())
        return [scores, attended, *grads]

    with torch.autograd.profiler.profile() as profile:
        direct = results()
    assert not [event.name for event in profile.function_events if event.name.startswith("fastzsl::")]
    with Watch() as watch:
        watched = results()
    assert {name for name in watch.names if name.startswith("fastzsl::")} == {
        "fastzsl::attended_scores",
        "fastzsl::attended_scores_backward",
        "fastzsl::dense_attention",
        "fastzsl::dense_attention_backward",
    }
    for a, b in zip(direct, watched):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_compiled_transforms_and_learned_scales(backend: str, seed: int) -> None:
    inputs = [t.detach() for t in make(3, 9, 12, 20, 7)]
    scale = torch.tensor(0.7, requires_grad=True)

    def step(queries: Tensor, scale: Tensor | float) -> Tensor:
        return attended_scores(inputs[0], queries, *inputs[2:], scale=scale, backend=backend).sin().sum()

    compiled = torch.compile(torch.func.grad(step), fullgraph=True)
    torch.testing.assert_close(compiled(inputs[1], 0.5), torch.func.grad(step)(inputs[1], 0.5))
    learned = torch.compile(step, fullgraph=True)
    (got,) = torch.autograd.grad(learned(inputs[1], scale), scale)
    (want,) = torch.autograd.grad(step(inputs[1], scale), scale)
    torch.testing.assert_close(got, want)
