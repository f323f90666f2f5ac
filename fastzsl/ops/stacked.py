"""`attended_scores` with several decoders or tables of embeddings under one attention.

Each decoder alone would need the attention again. So the attended features are built once, by the kernels, and every
decoder scores them: with two decoders or more that costs fewer multiply-adds than any order of the single op.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops.checks import cast_for_autocast, check_scores
from fastzsl.ops.transforms import is_transformed


def is_stacked(decoder_weight: object, class_embeddings: object) -> bool:
    """Whether one of the two has a leading dimension G."""
    return any(isinstance(t, Tensor) and t.ndim == 3 for t in (decoder_weight, class_embeddings))


def stacked_scores(
    attend: Any,
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float | Tensor,
    backend: str,
) -> Tensor:
    """Scores (G, B, C) of G decoders (G, m, d) with biases (G, m), or of G tables (G, C, m), or of pairs of both.

    Args:
        attend: `dense_attention`.
    """
    _check(regions, queries, decoder_weight, decoder_bias, class_embeddings, similarity, scale)
    regions, queries, decoder_weight, decoder_bias, class_embeddings = cast_for_autocast(  # type: ignore[assignment]
        regions, queries, decoder_weight, decoder_bias, class_embeddings
    )
    attended = attend(regions, queries, scale=scale, backend=backend)
    weight, embeddings = (t if t.ndim == 3 else t[None] for t in (decoder_weight, class_embeddings))
    bias = None if decoder_bias is None else decoder_bias.reshape(-1, 1, weight.shape[1])  # (G or 1, 1, m)
    if similarity == "dot":
        scores = products(attended, embeddings @ weight)
        return scores if bias is None else scores + (embeddings * bias).sum(-1)[:, None]
    decoded = attended.flatten(0, 1) @ weight.mT  # (G or 1, B C, m)
    decoded = (decoded if bias is None else decoded + bias).unflatten(1, attended.shape[:2])
    return (F.normalize(decoded, dim=-1) * F.normalize(embeddings, dim=-1)[:, None]).sum(-1)


def products(attended: Tensor, tables: Tensor) -> Tensor:
    """p_c . x~_bc of every table: attended (B, C, d), tables (G, C, d) -> (G, B, C)."""
    if is_transformed(attended, tables) or attended.dtype != tables.dtype:
        return torch.einsum("bcd,gcd->gbc", attended, tables)
    return _Products.apply(attended, tables)


class _Products(torch.autograd.Function):
    """`products` whose gradient of `attended` is written once, in the order in which the attention reads it.

    Autograd of the einsum writes it class by class, and copies it: half of the time of a training step of DAZLE.
    """

    @staticmethod
    def forward(ctx: Any, attended: Tensor, tables: Tensor) -> Tensor:
        ctx.save_for_backward(attended, tables)
        return torch.einsum("bcd,gcd->gbc", attended, tables)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        attended, tables = ctx.saved_tensors
        of_attended = of_tables = None
        if ctx.needs_input_grad[0]:
            of_attended = grad[0, ..., None] * tables[0]
            for g, table in zip(grad[1:], tables[1:]):
                of_attended = of_attended.addcmul_(g[..., None], table)
        if ctx.needs_input_grad[1]:
            of_tables = torch.einsum("gbc,bcd->gcd", grad, attended)
        return of_attended, of_tables


def _check(
    regions: Tensor, queries: Tensor, weight: Tensor, bias: Tensor | None, embeddings: Tensor,
    similarity: str, scale: float | Tensor,
) -> None:  # fmt: skip
    sizes = {
        name: len(t)
        for name, t, ndim in (("decoder_weight", weight, 3), ("class_embeddings", embeddings, 3))
        if isinstance(t, Tensor) and t.ndim == ndim
    }
    if isinstance(bias, Tensor) and isinstance(weight, Tensor) and weight.ndim == 3:
        if bias.ndim != 2:
            raise ValueError(
                f"decoder_bias has shape {tuple(bias.shape)}; wanted (G, m) beside decoder_weight (G, m, d)"
            )
        sizes["decoder_bias"] = len(bias)
    if 0 in sizes.values():
        raise ValueError("decoder_weight or class_embeddings is a stack of G=0; wanted at least one")
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} has G={size}" for name, size in sizes.items())
        raise ValueError(f"{found}; wanted one G")
    first = [t[0] if isinstance(t, Tensor) and t.ndim == 3 else t for t in (weight, embeddings)]
    bias = bias[0] if "decoder_bias" in sizes and bias is not None else bias
    check_scores(regions, queries, first[0], bias, first[1], similarity, scale)
