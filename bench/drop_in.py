"""The attention of DAZLE, MSDN and TransZero: written with einsum as in their papers, and with the ops of fastzsl.

    python -m bench.drop_in [--threads 2] [--seconds 5]

checks that both give the same outputs, and prints times and ratios; with one thread its processor time. Letters: B
images, R regions, f features of a region, n attributes, v numbers of a word vector, k classes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, einsum

from fastzsl.ops import attended_scores, dense_attention

Model = Callable[..., Tensor]


class Shape(NamedTuple):
    """Sizes of a model's inputs."""

    B: int
    R: int
    f: int
    n: int
    v: int
    k: int


CUB = Shape(B=32, R=49, f=2048, n=312, v=300, k=200)


def dazle_einsum(F: Tensor, V: Tensor, Z: Tensor, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
    """F (B, f, R) of unit length, V (n, v), Z (k, n), W1 to W3 (v, f): attention over regions, then over attributes."""
    value = einsum("nv,vf,bfr->bnr", V, W1, F)
    attention = einsum("nv,vf,bfr->bnr", V, W2, F).softmax(-1)
    attended = einsum("bnr,bfr->bnf", attention, F)
    gate = einsum("nv,vf,bnf->bn", V, W3, attended).sigmoid()
    return einsum("kn,bn,bn->bk", Z, gate, einsum("bnr,bnr->bn", attention, value))


def dazle_fused(F: Tensor, V: Tensor, Z: Tensor, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
    value, gate = attended_scores(F.mT, V @ W2, torch.stack([W1, W3]), None, V, similarity="dot")
    return (gate.sigmoid() * value) @ Z.mT


def msdn_einsum(F: Tensor, V: Tensor, W1: Tensor, W2: Tensor, W3: Tensor, W4: Tensor, W5: Tensor) -> Tensor:
    """Attributes attend to regions, and regions to attributes; both give a value of each attribute, (2, B, n)."""
    to_regions = einsum("nv,vf,bfr->bnr", V, W1, F).softmax(2)
    attended = einsum("bnr,bfr->bnf", to_regions, F)
    first = einsum("nv,vf,bnf->bn", V, W2, attended)
    to_attributes = einsum("nv,vf,bfr->bnr", V, W3, F).softmax(1)
    described = einsum("bnr,nv->brv", to_attributes, V)
    matched = einsum("brv,vf,bfr->br", described, W4, F)
    second = einsum("nv,vf,bfr,br->bn", V, W5, F, matched)
    return torch.stack([first, second])


def msdn_fused(F: Tensor, V: Tensor, W1: Tensor, W2: Tensor, W3: Tensor, W4: Tensor, W5: Tensor) -> Tensor:
    X = F.mT
    first = attended_scores(X, V @ W1, W2, None, V, similarity="dot")
    # The attributes are the regions of a single "image", and every region of the batch is a query.
    described = dense_attention(V[None], (X @ W3.mT).flatten(0, 1)).view(*X.shape[:2], -1)
    matched = ((described @ W4) * X).sum(-1)
    second = (matched[:, None] @ X)[:, 0] @ (V @ W5).mT
    return torch.stack([first, second])


def transzero_einsum(
    F: Tensor, V: Tensor, Wq: Tensor, bq: Tensor, Wk: Tensor, bk: Tensor, Wv: Tensor, bv: Tensor, Ws: Tensor
) -> Tensor:
    """The decoder's cross-attention with one head: keys and values are linear in the regions, as are the scores."""
    X = F.mT
    query, key, value = V @ Wq + bq, X @ Wk + bk, X @ Wv + bv
    attention = (einsum("ne,bre->bnr", query, key) / key.shape[-1] ** 0.5).softmax(-1)
    return einsum("nv,ve,bne->bn", V, Ws, einsum("bnr,bre->bne", attention, value))


def transzero_fused(
    F: Tensor, V: Tensor, Wq: Tensor, bq: Tensor, Wk: Tensor, bk: Tensor, Wv: Tensor, bv: Tensor, Ws: Tensor
) -> Tensor:
    # h.(Wk x + bk): the matrix moves to the queries, and bk, the same for all regions, falls out of the softmax.
    queries = (V @ Wq + bq) @ Wk.mT
    return attended_scores(
        F.mT, queries, Wv.mT, bv, V @ Ws, similarity="dot", scale=Wk.shape[1] ** -0.5
    )  # fmt: skip


MODELS: dict[str, tuple[Model, Model]] = {
    "DAZLE": (dazle_einsum, dazle_fused),
    "MSDN": (msdn_einsum, msdn_fused),
    "TransZero": (transzero_einsum, transzero_fused),
}


def inputs_of(model: str, shape: Shape, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random inputs of a model, drawn from torch's generator; all but the regions require gradients."""
    B, R, f, n, v, k = shape

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns) / rows**0.5

    F = torch.nn.functional.normalize(torch.randn(B, f, R).relu(), dim=1)
    V = torch.nn.functional.normalize(torch.randn(n, v), dim=1)
    if model == "DAZLE":
        rest = [torch.randn(k, n), *(3 * torch.randn(v, f) for _ in range(3))]
    elif model == "MSDN":
        rest = [3 * torch.randn(v, f) for _ in range(5)]
    else:
        e = f // 4
        rest = [
            3 * matrix(v, e),
            torch.randn(e),
            30 * matrix(f, e),
            torch.randn(e),
            matrix(f, e),
            torch.randn(e),
        ]
        rest.append(torch.randn(v, e))
    tensors = [t.to(dtype) for t in (F, V, *rest)]
    return [tensors[0], *(t.requires_grad_() for t in tensors[1:])]


def step(function: Model, inputs: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of its square's sum; None where there is none, as of TransZero's bk."""
    output = function(*inputs)
    found = torch.autograd.grad(output.square().sum(), inputs[1:], allow_unused=True)
    return [output.detach(), *(torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs[1:]))]


def output_only(function: Model, inputs: list[Tensor]) -> list[Tensor]:
    return [function(*inputs)]


def main() -> None:
    from bench.measure import check, interleaved  # needs the native kernels, the formulas above do not

    parser = argparse.ArgumentParser(prog="python -m bench.drop_in", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each model and pass")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # With one thread its own processor time, which other programs on the machine disturb little.
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    for name in MODELS:
        torch.manual_seed(0)
        inputs = inputs_of(name, CUB)
        frozen = [t.detach() for t in inputs]
        truth = MODELS[name][0](*(t.double() for t in frozen))
        forward, training = (
            {who: partial(how, function, given) for who, function in zip(("einsum", "fastzsl"), MODELS[name])}
            for how, given in ((output_only, frozen), (step, inputs))
        )
        check(forward, truth, torch.float32)
        for what, runs in (("forward", forward), ("forward + backward", training)):
            times, _ = interleaved(runs, torch.float32, clock, options.seconds)
            ratio = times["einsum"] / times["fastzsl"]
            print(f"{name:10} {what:20} {1e3 * times['fastzsl']:8.1f} ms, einsum {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
