"""Order "prototype" of the cosine, whose lengths come from the Gram matrix of the decoded regions: the planner takes it
where it is the cheapest, and there it is right, in blocks of classes and with any layout of the regions.
"""

from __future__ import annotations

import pytest
import torch
from native_inputs import error, make
from torch import Tensor

from fastzsl import _native
from fastzsl.ops import attended_scores, native, plan_scores, reference

BENCHMARKED = [
    (32, 49, 200, 2048, 312),
    (64, 49, 150, 2048, 312),
    (16, 49, 717, 2048, 102),
    (1, 49, 200, 2048, 312),
]
# The second and third have several blocks of classes, and the third several blocks of embeddings.
SHAPES = [(6, 9, 120, 20, 70), (4, 50, 700, 40, 230), (8, 49, 300, 64, 1100)]


def order_of(shape: tuple[int, int, int, int, int]) -> str:
    return plan_scores(*shape, "cosine", native.ORDERS["cosine"]).order


def scores_and_gradients(scores: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view_as(scores)
    return [scores, *torch.autograd.grad((scores * weights).sum(), inputs)]


def test_where_the_planner_takes_it() -> None:
    assert [order_of(shape) for shape in BENCHMARKED] == ["project"] * len(BENCHMARKED)
    assert order_of((32, 49, 1000, 384, 1024)) == "prototype"
    assert [order_of(shape) for shape in SHAPES] == ["prototype"] * len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "T contiguous", "every other image"])
def test_public_scores_and_gradients(
    isa: str, shape: tuple[int, int, int, int, int], layout: str, seed: int
) -> None:
    inputs = make(*shape, t_contiguous=layout == "T contiguous", bias=layout != "T contiguous")
    if layout == "every other image":  # no one stride runs through the regions of all images
        twice = torch.full((2 * shape[0], *shape[1:2], shape[3]), float("nan"))
        twice[::2] = inputs.regions.detach()
        inputs = inputs._replace(regions=twice[::2].requires_grad_())
    exact = inputs.double()
    eager = scores_and_gradients(reference.attended_scores(*inputs), inputs.present())
    truth = scores_and_gradients(reference.attended_scores(*exact), exact.present())
    got = scores_and_gradients(attended_scores(*inputs, backend="native"), inputs.present())
    for number, (ours, theirs, right) in enumerate(zip(got, eager, truth)):
        assert error(ours, right) <= 2 * error(theirs, right) + 2**-24, number


def test_frozen_inputs_get_no_gradient_and_the_others_the_same(isa: str, seed: int) -> None:
    shape = SHAPES[1]
    inputs = [t.detach() for t in make(*shape)]
    saved = native.scores_forward(*inputs, "cosine", 1.0, "prototype", True)

    def gradients(needs: list[bool]) -> tuple[Tensor, ...]:
        upstream = torch.linspace(-1, 2, saved[0].numel()).view_as(saved[0])
        return native.scores_backward(upstream, *inputs, *saved[1:], "cosine", 1.0, "prototype", needs)

    full = gradients([True] * 5)
    for number in range(32):
        needs = [bool(number >> i & 1) for i in range(5)]
        for grad, whole, need in zip(gradients(needs), full, needs):
            assert torch.equal(grad, whole if need else torch.empty(0))


def test_several_blocks_of_classes_in_the_backward_pass(seed: int) -> None:
    """dS and dU of a block take 64 MiB at most: here two blocks, whose parts of dX, dW and db are added up."""
    inputs = make(16, 196, 2800, 8, 12)
    truth = scores_and_gradients(reference.attended_scores(*inputs), inputs.present())
    with torch.no_grad():
        saved = native.scores_forward(*inputs, "cosine", 1.0, "prototype", True)
        upstream = torch.linspace(-1, 2, saved[0].numel()).view_as(saved[0])
        got = native.scores_backward(upstream, *inputs, *saved[1:], "cosine", 1.0, "prototype", [True] * 5)
    for name, ours, right in zip(("scores", *"XHWbK"), (saved[0], *got), truth):
        assert error(ours, right) < 1e-5, name


def test_starts_again_where_bf16x3_meets_infinity(seed: int) -> None:
    """float32 on AMX: nothing of the first attempt, which got as far as the last block of classes, may be left."""
    before, bf16x3_from = _native.isa(), _native.bf16x3_from()
    inputs = [t.detach() for t in make(4, 50, 600, 24, 230)]
    inputs[1][590, 3] = float("inf")
    try:
        results = []
        for name in ("avx512", _native.isas()[-1]):
            if name not in _native.isas():
                pytest.skip(f"no {name} here")
            _native.set_isa(name)
            _native.set_bf16x3_from(0)
            saved = native.scores_forward(*inputs, "cosine", 1.0, "prototype", True)
            results.append(
                [
                    *saved,
                    *native.scores_backward(
                        torch.ones(4, 600), *inputs, *saved[1:], "cosine", 1.0, "prototype", [True] * 5
                    ),
                ]
            )
    finally:
        _native.set_isa(before)
        _native.set_bf16x3_from(bf16x3_from)
    assert results[0][0][:, :590].isfinite().all()
    assert not results[0][0][:, 590].isfinite().any()
    for a, b in zip(*results):
        assert torch.equal(a.isfinite(), b.isfinite())
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
