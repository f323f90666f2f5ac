"""LESAE: the semantic autoencoder with a mapping of low rank.

Liu, Gao, Li, Han and Shao, "Zero shot learning via low-rank embedded semantic autoencoder", IJCAI 2018. No code of
the authors is public: this is a reconstruction from the abstract and from later work on the same objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastzsl.methods.engines.statistics import Spectrum, Statistics
from fastzsl.methods.engines.tied import solve_sylvester
from fastzsl.methods.register import register
from fastzsl.methods.sae import SAE
from fastzsl.methods.settings import check_settings

STEPS = 30
SMALLEST_FALL = 1e-7
"""Stop when the objective falls by a smaller share than this."""


@register
@dataclass(frozen=True)
class LESAE(SAE):
    """LESAE, reconstructed. Minimises over W (m, d), with s_i the singular values of W in falling order,

        |X - S W|² + lambda |X W' - S|² + beta sum_{i > r} s_i²

    in turn: Gamma spans the m - r directions in which W is smallest, then W solves
    (S'S + beta Gamma Gamma') W + lambda W X'X = (1 + lambda) S'X. Each turn lowers the objective. With beta = 0
    or r = rank of S it is SAE.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        log_lambda: log10 of lambda in units of (trace(S'S) / m) / (trace(X'X) / d).
        log_beta: log10 of beta in units of trace(S'S) / m.
        rank_share: r as a share of the rank of S, rounded; above 0, at most 1.
        direction: "to_embedding" compares W x with a (F->S), "to_feature" compares x with W' a (S->F); by cosine.
        row_normalise_w: give each row of W unit length before scoring.
    """

    name: ClassVar[str] = "lesae"
    label: ClassVar[str] = "LESAE"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **SAE.grid,
        "rank_share": (0.3, 0.5, 0.7, 0.9),
        "log_beta": (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0),
    }
    full_grid: ClassVar[bool] = False

    log_beta: float = 0.0
    rank_share: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, positive=["rank_share"], largest={"rank_share": 1.0})

    def solve(self, stats: Statistics, target: Tensor) -> Tensor:
        code, right = stats.code_gram.range, stats.gram.range
        rank = max(1, round(self.rank_share * len(code.values)))
        share = self.scaled_lambda(stats)
        beta = 10.0**self.log_beta * stats.code_gram.mean
        inner, _ = low_rank(code.values, right, share, beta, rank, (1 + share) * target)
        return code.vectors @ (inner @ right.vectors.mT)


def low_rank(
    code: Tensor, right: Spectrum, share: float, beta: float, rank: int, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The alternation, in the eigenvectors of S'S and X'X, outside whose ranges W is zero.

    Args:
        code: (k,) eigenvalues of S'S above 0; right: range of X'X.
        share: lambda; beta: weight on the tail of the spectrum of W.
        rank: r, singular values that cost nothing.
        target: (1 + lambda) S'X, (k, rank X).

    Returns:
        W (k, rank X), and the last Gamma (k, k - r).
    """
    identity = torch.eye(len(code), dtype=code.dtype, device=code.device)
    weight = solve_sylvester(Spectrum(code, identity), right, share, target)
    smallest, tail = identity[:, :0], len(code) - rank
    if tail <= 0:
        return weight, smallest
    last = torch.inf
    for _ in range(STEPS):
        smallest = torch.linalg.eigh(weight @ weight.mT).eigenvectors[:, :tail]
        left = Spectrum.of(code.diag() + beta * (smallest @ smallest.mT))
        weight = left.vectors @ solve_sylvester(left, right, share, left.vectors.mT @ target)
        value = objective(code, right.values, share, beta, rank, target, weight)
        if last - value <= SMALLEST_FALL * abs(value):
            break
        last = value
    return weight, smallest


def objective(
    code: Tensor, gram: Tensor, share: float, beta: float, rank: int, target: Tensor, weight: Tensor
) -> float:
    """The objective less the constant |X|² + lambda |S|², in the eigenvectors of S'S and X'X.

    |X - S W|² + lambda |X W' - S|² = constant + tr(W' S'S W) + lambda tr(W X'X W') - 2 (1 + lambda) tr(W' S'X).
    """
    squares = weight.square()
    fit = (squares * (code[:, None] + share * gram)).sum() - 2 * (weight * target).sum()
    energies = torch.linalg.eigvalsh(weight @ weight.mT)[: len(code) - rank]
    return float(fit + beta * energies.clamp_min(0).sum())
