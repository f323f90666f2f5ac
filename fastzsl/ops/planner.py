"""The cheapest order of contraction for `attended_scores`, chosen from the shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ORDERS = ("attend", "project", "prototype")


class Plan(NamedTuple):
    """The chosen order, and the multiply-adds of a whole batch in every order that was considered."""

    order: str
    costs: dict[str, int]


def score_costs(B: int, T: int, C: int, d: int, m: int, similarity: str = "cosine") -> dict[str, int]:
    """Multiply-adds of the forward pass in each order; all orders compute the same function.

    - attend: build X~ (TCd for the logits, TCd for pooling), then decode each class's feature (Cdm).
    - project: decode the regions once, V = X W^T (Tdm), and pool in the space of the embeddings. For dot
      u = k·v (TCm) is pooled; cosine needs e = A V (TCm) and its length.
    - prototype: move the embeddings to the feature space once a batch, P = K W (Cmd), so that u = P X^T
      (TCd). Cosine adds the lengths from the Gram matrix of V: Tdm + T²m + T²C.

    >>> score_costs(1, 49, 200, 2048, 312, "dot")["project"]
    54437824
    """
    project = B * (T * C * d + T * d * m + T * C * m)
    prototype = C * m * d + B * 2 * T * C * d
    if similarity == "cosine":
        project += B * 2 * C * m
        prototype += B * (T * d * m + T * T * m + T * T * C)
    return {"attend": B * (2 * T * C * d + C * d * m + C * m), "project": project, "prototype": prototype}


def plan_scores(
    B: int,
    T: int,
    C: int,
    d: int,
    m: int,
    similarity: str = "cosine",
    orders: Sequence[str] = ORDERS,
) -> Plan:
    """Pick the order with the fewest multiply-adds.

    Args:
        B, T, C, d, m: pictures, regions, classes, feature size, embedding size.
        similarity: "cosine" or "dot".
        orders: the orders that the caller can compute; ties go to the earlier one.

    >>> plan_scores(32, 49, 200, 2048, 312, "dot").order
    'prototype'
    >>> plan_scores(16, 49, 717, 2048, 102, "dot").order
    'project'
    >>> plan_scores(32, 49, 200, 2048, 312, "cosine").order
    'project'
    """
    costs = score_costs(B, T, C, d, m, similarity)
    considered = {order: costs[order] for order in orders}
    cheapest = orders[0]
    for order in orders[1:]:  # not min(): torch.compile cannot trace its key where a shape is dynamic
        if considered[order] < considered[cheapest]:
            cheapest = order
    return Plan(cheapest, considered)
