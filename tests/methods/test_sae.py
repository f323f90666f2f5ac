"""SAE solves its Sylvester equation for every lambda, and LESAE is SAE but for the tail of its spectrum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.linalg import solve_sylvester
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.statistics import Spectrum, Statistics, statistics
from fastzsl.methods.engines.tied import TiedModel
from fastzsl.methods.lesae import LESAE, low_rank, objective
from fastzsl.methods.method import ClassSet, new_model
from fastzsl.methods.problem import Problem
from fastzsl.methods.sae import SAE, rotated_target
from tests.methods.planted import planted


def fitted(method: SAE, data) -> tuple[TiedModel, Statistics]:
    # Centring leaves the mean's rounding, a direction on the edge of the rank; these tests are of full precision.
    method = replace(method, embedding_normalisation="unit")
    problem = Problem(data)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0).double()
    method.fit(model, problem, Context())  # type: ignore[arg-type]
    return model, statistics(model, problem, Context())  # type: ignore[arg-type, return-value]


def matrices(model: TiedModel, data) -> tuple[Tensor, Tensor]:
    """X (N, d) and S (N, m), as the model scales them."""
    problem = Problem(data)
    features = model.scaling(problem.pooled().double())
    return features, model.describe(problem.seen_descriptions.double())[problem.labels]


def loss(W: Tensor, X: Tensor, S: Tensor, weight: float) -> Tensor:
    return (X - S @ W).square().sum() + weight * (X @ W.mT - S).square().sum()


@pytest.mark.parametrize("log_lambda", [-3.0, 0.0, 4.0])
@pytest.mark.parametrize("unseen", [10, 34])  # 30 seen classes, and 6: fewer than the 16 attributes
def test_residual_of_the_sylvester_equation(log_lambda: float, unseen: int) -> None:
    method, data = SAE(log_lambda=log_lambda, feature_norm="standard"), planted(4, unseen=unseen)
    model, stats = fitted(method, data)
    X, S = matrices(model, data)
    W, weight = model.weight, method.scaled_lambda(stats)
    right = (1 + weight) * S.mT @ X
    assert (S.mT @ S @ W + weight * W @ X.mT @ X - right).norm() < 1e-9 * right.norm()


def test_it_equals_a_sylvester_solver() -> None:
    method, data = SAE(log_lambda=-0.5), planted(5, feature_dim=40)
    model, stats = fitted(method, data)
    X, S = matrices(model, data)
    weight = method.scaled_lambda(stats)
    other = solve_sylvester(
        (S.mT @ S).numpy(), (weight * X.mT @ X).numpy(), ((1 + weight) * S.mT @ X).numpy()
    )
    torch.testing.assert_close(model.weight, torch.from_numpy(other), rtol=1e-7, atol=1e-9)


def test_every_step_away_raises_the_objective(seed: int) -> None:
    method, data = SAE(), planted(6)
    model, stats = fitted(method, data)
    X, S = matrices(model, data)
    weight = method.scaled_lambda(stats)
    lowest = loss(model.weight, X, S, weight)
    for size in (1e-3, 1.0):
        for _ in range(10):
            assert loss(model.weight + size * torch.randn_like(model.weight), X, S, weight) > lowest


def test_a_large_lambda_leaves_the_regression_of_embeddings_on_features() -> None:
    data = planted(7)
    model, _ = fitted(SAE(log_lambda=9.0), data)
    X, S = matrices(model, data)
    torch.testing.assert_close(model.weight, torch.linalg.lstsq(X, S).solution.mT, rtol=1e-4, atol=1e-5)


def test_scores_are_cosines_in_either_space(seed: int) -> None:
    data = planted(8)
    for direction in ("to_embedding", "to_feature"):
        model, _ = fitted(SAE(direction=direction, feature_norm="unit"), data)  # type: ignore[arg-type]
        x, a = torch.rand(3, 48).double(), data.class_embeddings.double()
        found = model.classifier(ClassSet(a, torch.full((len(a),), -1)))(x)
        for i in range(3):
            for c in range(len(a)):
                one, other = (
                    (model.weight @ x[i], a[c])
                    if direction == "to_embedding"
                    else (x[i], a[c] @ model.weight)
                )
                assert abs(found[i, c] - torch.cosine_similarity(one, other, dim=0)) < 1e-12


def test_rows_get_unit_length_where_asked() -> None:
    model, _ = fitted(SAE(row_normalise_w=True), planted(9))
    plain, _ = fitted(SAE(), planted(9))
    torch.testing.assert_close(model.weight, plain.weight / plain.weight.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    "same", [{"rank_share": 1.0, "log_beta": 3.0}, {"rank_share": 0.3, "log_beta": -300.0}]
)
@pytest.mark.parametrize("unseen", [10, 34])
def test_lesae_is_sae_at_full_rank_or_without_the_penalty(same: dict[str, float], unseen: int) -> None:
    data = planted(10, unseen=unseen)
    lesae, _ = fitted(LESAE(**same), data)  # type: ignore[arg-type]
    sae, _ = fitted(SAE(), data)
    torch.testing.assert_close(lesae.weight, sae.weight, rtol=1e-9, atol=1e-11)


def test_lesae_lowers_its_objective_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastzsl.methods import lesae as module

    values = []

    def watched(*args):
        values.append(objective(*args))
        return values[-1]

    monkeypatch.setattr(module, "objective", watched)
    fitted(LESAE(log_beta=1.0, rank_share=0.4), planted(11))
    assert len(values) > 2
    assert all(later <= earlier + 1e-9 * abs(earlier) for earlier, later in pairwise(values))


def test_lesae_solves_its_equation_for_the_last_subspace_and_its_tail_falls_with_beta() -> None:
    data = planted(12)
    _, stats = fitted(SAE(), data)
    target = rotated_target(stats)
    code, right = stats.code_gram.range, stats.gram.range
    tails = []
    for beta in (0.0, 1.0, 10.0, 100.0, 1e5):
        W, gamma = low_rank(code.values, right, 2.0, beta, 5, target)
        energies = torch.linalg.svdvals(W).square()
        tails.append(float(energies[5:].sum()))
        residual = code.values[:, None] * W + beta * gamma @ (gamma.mT @ W) + 2.0 * W * right.values - target
        assert residual.norm() < 1e-9 * target.norm()
    assert tails == sorted(tails, reverse=True)
    assert tails[-1] < 1e-3 * tails[0]


def test_lesae_finds_the_rank_of_a_planted_map() -> None:
    generator = torch.Generator().manual_seed(13)
    S = torch.randn(300, 10, generator=generator).double()
    W0 = torch.randn(10, 3, generator=generator).double() @ torch.randn(3, 20, generator=generator).double()
    X = S @ W0 + 0.3 * torch.randn(300, 20, generator=generator).double()
    code, right = Spectrum.of(S.mT @ S), Spectrum.of(X.mT @ X)
    target = code.vectors.mT @ (1.1 * S.mT @ X) @ right.vectors
    values = torch.linalg.svdvals(low_rank(code.values, right, 0.1, 1e5, 3, target)[0])
    assert values[2] > 20 * values[3]
