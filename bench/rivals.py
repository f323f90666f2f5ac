"""The rivals of the native kernels: both ops as a good PyTorch user would write them, plain and compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops import eager

Function = Callable[..., Tensor]


def attend_einsum(regions: Tensor, queries: Tensor) -> Tensor:
    attention = torch.einsum("btd,cd->bct", regions, queries).softmax(-1)
    return torch.einsum("bct,btd->bcd", attention, regions)


def attend_matmul(regions: Tensor, queries: Tensor) -> Tensor:
    """One product of all regions for the logits, a batched one for the pooling."""
    logits = (regions.reshape(-1, regions.shape[-1]) @ queries.T).view(*regions.shape[:2], -1)
    return torch.bmm(logits.softmax(1).mT, regions)


def attend_sdpa(regions: Tensor, queries: Tensor) -> Tensor:
    """PyTorch's flash attention on the CPU takes any head dimension if the last stride is 1."""
    key = regions.unsqueeze(1)
    query = queries.expand(len(regions), 1, *queries.shape)
    return F.scaled_dot_product_attention(query, key, key, scale=1.0).squeeze(1)


def _compare(decoded: Tensor, classes: Tensor, similarity: str) -> Tensor:
    if similarity == "cosine":
        decoded, classes = F.normalize(decoded, dim=-1), F.normalize(classes, dim=-1)
    return (decoded * classes).sum(-1)


def scores_by(attend: Function, similarity: str) -> Function:
    """The paper's pipeline: attend, decode, compare."""

    def scores(regions: Tensor, queries: Tensor, weight: Tensor, bias: Tensor, classes: Tensor) -> Tensor:
        return _compare(F.linear(attend(regions, queries), weight, bias), classes, similarity)

    return scores


def scores_rewritten(order: str, similarity: str) -> Function:
    """The planner's algebra in plain PyTorch."""

    def scores(*inputs: Tensor) -> Tensor:
        return eager.attended_scores(*inputs, similarity=similarity, order=order)

    return scores


def _compiled(function: Function) -> Function:
    return torch.compile(function, fullgraph=True, dynamic=False)


def attention_rivals() -> dict[str, Function]:
    plain = {"einsum": attend_einsum, "matmul + bmm": attend_matmul, "SDPA": attend_sdpa}
    return plain | {f"{name}, compiled": _compiled(f) for name, f in plain.items()}


NAIVE = ("einsum", "matmul + bmm", "SDPA")


def scores_rivals(similarity: str) -> dict[str, Function]:
    attends = dict(zip(NAIVE, (attend_einsum, attend_matmul, attend_sdpa)))
    plain = {name: scores_by(f, similarity) for name, f in attends.items()}
    plain |= {
        f"rewritten, {order}": scores_rewritten(order, similarity)
        for order in eager.ORDERS[similarity]
        if order != "attend"
    }
    return plain | {f"{name}, compiled": _compiled(f) for name, f in plain.items()}


def with_backward(
    function: Function, inputs: tuple[Tensor, ...], upstream: Tensor
) -> Callable[[], list[Tensor]]:
    """Forward pass, and gradients of all `inputs` that require them."""
    leaves = [t for t in inputs if t.requires_grad]

    def run() -> list[Tensor]:
        result = function(*inputs)
        return [result.detach(), *torch.autograd.grad(result, leaves, upstream)]

    return run
