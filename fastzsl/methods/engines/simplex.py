"""The mixture of given rows that is nearest to a point: a quadratic programme on the simplex, solved exactly."""

from __future__ import annotations

import torch
from torch import Tensor

JITTER = 1e-13
"""Share of the mean diagonal that is added, so that an active set of linearly dependent rows can be solved."""


def nearest_mixtures(points: Tensor, rows: Tensor, ridge: float) -> Tensor:
    """argmin over z >= 0 with sum 1 of ridge / 2 |z|² + 1/2 |a - R' z|², for each point a.

    An active-set method. Rows enter one at a time, first the one that lowers the objective fastest, and leave if their
    weight would fall below 0. It reaches the minimum after a finite number of steps.

    Args:
        points: a (C, m).
        rows: R (K, m).
        ridge: 0 or more; larger values spread the weights.

    Returns:
        z (C, K) float64.
    """
    rows, points = rows.double().cpu(), points.double().cpu()
    products = rows @ rows.mT
    products.diagonal().add_(ridge + JITTER * float(products.diagonal().mean()))
    return torch.stack([_mixture(products, target) for target in points @ rows.mT])


def _mixture(products: Tensor, target: Tensor) -> Tensor:
    """argmin over the simplex of 1/2 z' P z - t' z, for P (K, K) positive and t (K,)."""
    weights = torch.zeros_like(target)
    first = int((0.5 * products.diagonal() - target).argmin())
    weights[first] = 1.0
    active = [first]
    scale = float(products.diagonal().max()) + float(target.abs().max()) + 1e-300
    for _ in range(10 * len(target)):
        slopes = products[:, active] @ weights[active] - target
        entering = int(slopes.argmin())
        if entering in active or slopes[entering] >= slopes[active].min() - 1e-14 * scale:
            break
        active.append(entering)
        while True:
            wanted = _equality_solution(products, target, active)
            if bool((wanted > 0).all()):
                weights.zero_()
                weights[active] = wanted
                break
            now = weights[active]
            falling = wanted <= 0
            share = float((now[falling] / (now[falling] - wanted[falling])).min())
            now = now + share * (wanted - now)
            kept = now > 1e-15
            kept[int(torch.where(falling, now, torch.inf).argmin())] = False
            weights.zero_()
            active = [place for place, stays in zip(active, kept.tolist()) if stays]
            weights[active] = now[kept]
    return weights / weights.sum()


def _equality_solution(products: Tensor, target: Tensor, active: list[int]) -> Tensor:
    """The minimum over the active weights with sum 1, of any sign."""
    size = len(active)
    system = torch.ones(size + 1, size + 1, dtype=products.dtype)
    system[:size, :size] = products[active][:, active]
    system[size, size] = 0
    right = torch.cat([target[active], torch.ones(1, dtype=target.dtype)])
    return torch.linalg.solve(system, right)[:size]
