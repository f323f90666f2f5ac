"""The cheapest order of contraction for `attended_scores`, chosen from the shapes and from the gradients wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ORDERS = ("attend", "project", "prototype")
"""Orders of the dot product; the cosine has the first two. With "prototype" it would need the lengths of e from the
Gram matrix of the decoded regions. If these cancel, the lengths lose most of their digits, and the gradient of W loses
even more."""
INPUTS = ("regions", "queries", "decoder_weight", "decoder_bias", "class_embeddings")
"""The tensor arguments of `attended_scores`, by which `gradients` names those that need a gradient."""


class Plan(NamedTuple):
    """The chosen order, and the multiply-adds of a whole batch in every order that was compared."""

    order: str
    costs: dict[str, int]


def needed_gradients(*tensors: Tensor | None) -> tuple[str, ...]:
    """The names in `INPUTS` of those tensors (given in that order) that need a gradient in this call."""
    if not torch.is_grad_enabled():
        return ()
    return tuple([name for name, t in zip(INPUTS, tensors) if t is not None and t.requires_grad])


def score_costs(
    B: int,
    T: int,
    C: int,
    d: int,
    m: int,
    similarity: str = "cosine",
    gradients: Collection[str] = (),
    remakes: bool = False,
) -> dict[str, int]:
    """Multiply-adds in each order, forward, and backward where `gradients` are wanted.

    All orders compute the same function.

    - attend: build X~ (TCd for the logits, TCd for pooling), then decode each class's feature (Cdm).
    - project: decode the regions once, V = X W^T (Tdm), and pool in the space of the embeddings. For dot
      u = k·v (TCm) is pooled; cosine needs e = A V (TCm) and its length.
    - prototype, for dot: move the embeddings to the feature space once a batch, P = K W (Cmd), so that
      u = P X^T (TCd).

    Backward, every product has the size of its forward one, once for each factor that needs a gradient:

    - attend: dX~ = dE W for what lies before it, dW = dE^T X~, dA = dX~ X^T, and A^T dX~ for the regions.
    - project: dA = dE V^T, dV = A^T dE, then dX = dV W, dW = dV^T X. For dot dA is elementwise, and the
      embeddings take a product with V.
    - prototype: dX += dU^T P, dP = dU X, dW = K^T dP, dK = dP W^T.
    - all: dH = dS X and dX += dS^T H from the gradient of the logits.

    Args:
        B, T, C, d, m: images, regions, classes, feature size, embedding size.
        similarity: "cosine" or "dot".
        gradients: which of `INPUTS` need a gradient; empty for the forward pass alone.
        remakes: the backend computes decoded features again in its backward pass instead of saving them.

    Returns:
        multiply-adds of a whole batch for each of `ORDERS` that the similarity has.

    >>> score_costs(1, 49, 200, 2048, 312, "dot")["project"]
    54437824
    """
    cosine = similarity == "cosine"
    attend = B * (2 * T * C * d + C * d * m + C * m)
    project = B * (T * C * d + T * d * m + T * C * m)
    prototype = C * m * d + B * 2 * T * C * d
    if cosine:
        project += B * 2 * C * m
    if gradients:
        regions, queries = "regions" in gradients, "queries" in gradients
        weight, classes = "decoder_weight" in gradients, "class_embeddings" in gradients
        attention = regions or queries
        values = regions or weight or "decoder_bias" in gradients
        through_logits = (regions + queries) * T * C * d
        through_values = (regions + weight) * T * d * m
        attend += B * (
            through_logits + (attention + weight + remakes) * C * d * m + (attention + regions) * T * C * d
        )
        products = attention + values + (1 + classes) * remakes if cosine or remakes else values + classes
        project += B * (through_logits + through_values + products * T * C * m)
        to_prototypes = weight or classes
        prototype += B * (through_logits + (regions + to_prototypes) * T * C * d)
        prototype += (weight + classes + (regions and remakes)) * C * m * d
    if cosine:
        return {"attend": attend, "project": project}
    return {"attend": attend, "project": project, "prototype": prototype}


def plan_scores(
    B: int,
    T: int,
    C: int,
    d: int,
    m: int,
    similarity: str = "cosine",
    orders: Sequence[str] | None = None,
    gradients: Collection[str] = (),
    remakes: bool = False,
) -> Plan:
    """Pick the order with the fewest multiply-adds, those of the backward pass included.

    Args:
        B, T, C, d, m: images, regions, classes, feature size, embedding size.
        similarity: "cosine" or "dot".
        orders: the orders that the caller can compute, None for all; ties go to the earlier one.
        gradients, remakes: as in `score_costs`.

    >>> plan_scores(32, 49, 200, 2048, 312, "dot").order
    'prototype'
    >>> plan_scores(16, 49, 717, 2048, 102, "dot").order
    'project'
    >>> plan_scores(32, 49, 200, 2048, 312, "cosine").order
    'project'
    >>> plan_scores(64, 98, 71, 1280, 1024).order
    'attend'
    >>> plan_scores(64, 98, 71, 1280, 1024, gradients=("queries", "decoder_weight")).order
    'project'
    """
    costs = score_costs(B, T, C, d, m, similarity, gradients, remakes)
    orders = orders or tuple(costs)
    considered = {order: costs[order] for order in orders}
    cheapest = orders[0]
    for order in orders[1:]:  # not min(): torch.compile cannot trace its key where a shape is dynamic
        if considered[order] < considered[cheapest]:
            cheapest = order
    return Plan(cheapest, considered)
