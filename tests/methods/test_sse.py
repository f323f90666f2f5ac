"""SSE: mixtures are minima on the simplex, both forms of the score agree, and training lowers its objective."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.simplex import nearest_mixtures
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from fastzsl.methods.sse import SSE, Objective, SimilarityEmbedding, some_of_each_class
from tests.methods.planted import all_classes, features, planted

DATA = planted(4, classes=12, unseen=4)


def fitted(method: SSE, **context) -> SimilarityEmbedding:
    problem = Problem(DATA)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    method.fit(model, problem, Context(**context))  # type: ignore[arg-type]
    return model  # type: ignore[return-value]


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize(("rows", "size"), [(9, 30), (30, 9), (1, 4)])
def test_mixtures_satisfy_the_conditions_of_the_minimum(
    seed: int, gamma: float, rows: int, size: int
) -> None:
    A, points = torch.randn(rows, size).double(), torch.randn(7, size).double()
    A, points = A / A.norm(dim=1, keepdim=True), points / points.norm(dim=1, keepdim=True)
    z = nearest_mixtures(points, A, gamma)
    assert (z >= 0).all()
    torch.testing.assert_close(z.sum(1), torch.ones(7).double())
    slopes = gamma * z + (z @ A - points) @ A.mT
    assert ((slopes * z).sum(1) - slopes.amin(1)).max() < 1e-12


def test_mixtures_equal_those_of_a_general_solver(seed: int) -> None:
    A, points = torch.randn(6, 8).double(), torch.randn(4, 8).double()
    for point, z in zip(points, nearest_mixtures(points, A, 0.05)):
        other = minimize(
            lambda x, p=point: 0.025 * x @ x + 0.5 * np.square(p.numpy() - A.numpy().T @ x).sum(),
            np.full(6, 1 / 6),
            bounds=[(0, None)] * 6,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 1000},
        )
        np.testing.assert_allclose(z, other.x, atol=1e-6)


def test_without_gamma_a_seen_class_is_itself_alone_and_gamma_spreads_it(seed: int) -> None:
    A = torch.nn.functional.normalize(torch.randn(6, 10).double(), dim=1)
    torch.testing.assert_close(nearest_mixtures(A, A, 0.0), torch.eye(6).double(), atol=1e-9, rtol=0)
    assert nearest_mixtures(A, A, 0.5).diagonal().max() < 0.95


def test_equal_rows_do_no_harm() -> None:
    A = torch.ones(5, 3).double()
    z = nearest_mixtures(A[:2], A, 0.0)
    assert torch.isfinite(z).all()
    torch.testing.assert_close(z.sum(1), torch.ones(2).double())


@pytest.mark.parametrize("kind", ["int", "relu"])
def test_both_forms_of_the_score_agree(kind: str) -> None:
    model = fitted(SSE(kind=kind))  # type: ignore[arg-type]
    x = features(DATA, DATA.test_unseen[:6], "pooled")
    found = model.classifier(all_classes(DATA))(x).double()
    scaled, v, w = model.scaling(x).double(), model.thresholds.double(), model.weight.double()
    z = nearest_mixtures(model.describe(DATA.class_embeddings), model.seen, model.gamma)
    for i in range(6):
        phi = torch.minimum(scaled[i], v) if kind == "int" else (scaled[i] - v).clamp_min(0)
        for c in range(12):
            torch.testing.assert_close(found[i, c], w @ (z[c] @ phi), rtol=1e-4, atol=1e-4)


def wide_objective(method: SSE) -> tuple[Objective, Tensor, Tensor]:
    """The objective in float64, and some w and v."""
    problem = Problem(DATA)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    data = model.fit_scales(problem, Context())  # type: ignore[operator]
    model.seen = data.descriptions
    data = data._replace(features=data.features.double(), descriptions=data.descriptions.double())
    objective = Objective(method, data, model.mixtures(data.descriptions).double(), 0)  # type: ignore[operator]
    return objective, torch.randn(48).double(), 0.2 * torch.rand(8, 48).double()


@pytest.mark.parametrize("kind", ["int", "relu"])
def test_objective_equals_loops_and_its_derivatives_finite_differences(seed: int, kind: str) -> None:
    method = SSE(kind=kind, images_per_class=2, gamma=0.05)  # type: ignore[arg-type]
    objective, w, v = wide_objective(method)
    value, by_w, by_v = objective.value_and_gradients(w, v, of_thresholds=True)
    X, y, z = objective.features, objective.labels, objective.mixtures
    total = 0.0
    for x, label in zip(X, y.tolist()):
        pi = (torch.minimum(x, v) if kind == "int" else (x - v).clamp_min(0)) @ w
        score = z @ pi
        for c in range(8):
            if c != label:
                total += max(0.0, float(1 - pi[label] + pi[c]))
                total += max(0.0, float(objective.margins[label, c] - score[label] + score[c]))
    total /= len(X) * 8
    total += float(0.5 * objective.penalty * w.square().sum())
    total += float(0.5 * objective.threshold_penalty * v.square().sum() / 8)
    assert abs(float(value) - total) < 1e-10
    step = 1e-7
    for j in torch.randint(48, (5,)).tolist():
        move = torch.zeros(48).double()
        move[j] = step
        change = objective.value(w + move, v) - objective.value(w - move, v)
        assert abs(change / (2 * step) - float(by_w[j])) < 1e-5
        s = j % 8
        moved = torch.zeros_like(v)
        moved[s, j] = step
        change = objective.value(w, v + moved) - objective.value(w, v - moved)
        assert by_v is not None
        assert abs(change / (2 * step) - float(by_v[s, j])) < 1e-5


@pytest.mark.parametrize("kind", ["int", "relu"])
def test_the_objective_never_rises(kind: str) -> None:
    losses = []
    model = fitted(
        SSE(kind=kind, rounds=4),  # type: ignore[arg-type]
        listener=lambda step, total, figures: losses.append(figures["loss"]),
    )
    assert len(losses) > 1
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert (model.thresholds >= 0).all()


def test_some_images_of_each_class_are_drawn() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 0, 1])
    chosen = some_of_each_class(labels, 2, 0)
    assert torch.bincount(labels[chosen]).tolist() == [2, 2, 1]
    assert len(chosen.unique()) == 5
    assert some_of_each_class(labels, 9, 0).tolist() == list(range(8))
    assert any(some_of_each_class(labels, 2, s).tolist() != chosen.tolist() for s in range(1, 9))
