"""Several decoders or tables of embeddings under one attention: what each alone gives, on every backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastzsl.ops import attended_scores, backends, reference

BACKENDS = [name for name in ("eager", "native") if backends()[name]]
G, B, T, C, d, m = 3, 4, 9, 7, 16, 5


def draw(kind: str, bias: bool = True) -> list[Tensor | None]:
    weight = torch.randn(*((G,) if kind != "tables" else ()), m, d)
    offset = torch.randn(weight.shape[:-1]) if bias else None
    embeddings = torch.randn(*((G,) if kind != "decoders" else ()), C, m)
    return [torch.randn(B, T, d), torch.randn(C, d), weight, offset, embeddings]


def one_by_one(
    regions: Tensor, queries: Tensor, W: Tensor, b: Tensor | None, K: Tensor, **how: object
) -> Tensor:
    def part(t: Tensor | None, g: int, ndim: int) -> Tensor | None:
        return t if t is None or t.ndim == ndim else t[g]

    return torch.stack(
        [reference.attended_scores(regions, queries, part(W, g, 2), part(b, g, 1), part(K, g, 2), **how)  # type: ignore[arg-type]
         for g in range(G)]
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("kind", ["decoders", "tables", "both"])
@pytest.mark.parametrize("bias", [True, False])
def test_scores_and_gradients(kind: str, bias: bool, similarity: str, backend: str, seed: int) -> None:
    inputs = draw(kind, bias)
    upstream = torch.randn(G, B, C)

    def run(function, dtype: torch.dtype, **how: object) -> list[Tensor]:  # type: ignore[no-untyped-def]
        leaves = [None if t is None else t.to(dtype).requires_grad_() for t in inputs]
        scores = function(*leaves, similarity=similarity, scale=0.7, **how)
        present = [t for t in leaves if t is not None]
        return [scores, *torch.autograd.grad(scores, present, upstream.to(dtype))]

    truth, plain = run(one_by_one, torch.float64), run(one_by_one, torch.float32)
    for found, theirs, exact in zip(run(attended_scores, torch.float32, backend=backend), plain, truth):
        error, allowed = (float((x - exact).norm() / exact.norm()) for x in (found, theirs))
        assert error <= 2 * allowed + 1e-6
    assert attended_scores(*inputs, similarity=similarity, backend=backend).shape == (G, B, C)  # type: ignore[arg-type]


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_half_precision_autocast_compile_and_transforms(similarity: str, seed: int) -> None:
    inputs = draw("decoders")

    def scores(*tensors: Tensor) -> Tensor:
        return attended_scores(*tensors, similarity=similarity)  # type: ignore[arg-type]

    expected = scores(*inputs)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        assert scores(*inputs).dtype == torch.bfloat16  # type: ignore[arg-type]
    whole = torch.compile(scores, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(*inputs), expected)
    each = torch.func.vmap(lambda x: scores(x[None], *inputs[1:]), out_dims=2)(inputs[0])  # type: ignore[arg-type]
    torch.testing.assert_close(each[:, 0], expected, atol=1e-5, rtol=1e-4)


def test_second_derivatives(seed: int) -> None:
    inputs = [t.double().requires_grad_() for t in draw("decoders") if t is not None]
    assert torch.autograd.gradgradcheck(lambda *t: attended_scores(*t, similarity="dot"), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_of_torch_func(backend: str, seed: int) -> None:
    inputs = [t for t in draw("decoders") if t is not None]
    tangents = [torch.randn_like(t) for t in inputs]

    def scores(*tensors: Tensor) -> Tensor:
        return attended_scores(*tensors, similarity="dot", backend=backend)

    value, tangent = torch.func.jvp(scores, tuple(inputs), tuple(tangents))
    doubles = [tuple(t.double() for t in ts) for ts in (inputs, tangents)]
    exact = torch.func.jvp(lambda *t: one_by_one(*t, similarity="dot"), *doubles)
    for found, true in zip((value, tangent), exact):
        torch.testing.assert_close(found.double(), true, rtol=0, atol=1e-4 * float(true.abs().max()))
    assert all(g.any() for g in torch.func.grad(lambda *t: scores(*t).sin().sum(), (0, 1, 2))(*inputs))


def test_wrong_shapes_are_named(seed: int) -> None:
    x, h, w, b, k = draw("decoders")
    for arguments, message in (
        ((x, h, w, b[0], k), r"decoder_bias has shape \(5,\); wanted \(G, m\)"),  # type: ignore[index]
        ((x, h, w, b[:2], k), "decoder_weight has G=3, decoder_bias has G=2; wanted one G"),  # type: ignore[index]
        ((x, h, w, b, k.expand(2, C, m)), "decoder_weight has G=3, class_embeddings has G=2"),  # type: ignore[union-attr]
        ((x, h, w[:0], None, k), "G=0"),  # type: ignore[index]
        ((x, h, w[..., :4], b, k), "decoder_weight has d=4 but regions has d=16"),  # type: ignore[index]
        ((x, h, w, b, k[:3]), "class_embeddings has C=3 but queries has C=7"),  # type: ignore[index]
        ((x, h, w, b, k.double()), "class_embeddings is torch.float64"),  # type: ignore[union-attr]
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            attended_scores(*arguments)  # type: ignore[arg-type]
