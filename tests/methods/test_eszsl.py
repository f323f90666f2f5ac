"""ESZSL's closed form is the minimum of its objective, and what others' code computes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.statistics import Spectrum
from fastzsl.methods.eszsl import ESZSL
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import planted

GAMMA, LAMBDA = 0.7, 0.03


def fitted(method: ESZSL, data) -> Tensor:
    """V in float64."""
    problem = Problem(data)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0).double()
    method.fit(model, problem, Context())  # type: ignore[arg-type]
    return model.weight


def matrices(data, norm: str = "none") -> tuple[Tensor, Tensor, Tensor]:
    """X (N, d), Y (N, C_s) in {0, 1} and A (C_s, m) with unit rows, in float64."""
    problem = Problem(data)
    features = problem.pooled().double()
    if norm == "unit":
        features = features / features.norm(dim=1, keepdim=True)
    labels = torch.nn.functional.one_hot(problem.labels, problem.num_classes).double()
    A = problem.seen_descriptions.double()
    return features, labels, A / A.norm(dim=1, keepdim=True)


def with_weights(data, gamma: float, lam: float, norm: str = "none") -> ESZSL:
    """The settings that mean these weights, which are shares of mean eigenvalues."""
    X, _, A = matrices(data, norm)
    return ESZSL(
        feature_norm=norm,  # type: ignore[arg-type]
        embedding_normalisation="unit",
        log_gamma=math.log10(gamma / (X.square().sum() / X.shape[1])),
        log_lambda=math.log10(lam / (A.square().sum() / A.shape[1])),
    )


def objective(V: Tensor, X: Tensor, Y: Tensor, A: Tensor) -> Tensor:
    return (
        (X @ V @ A.mT - Y).square().sum()
        + GAMMA * (V @ A.mT).square().sum()
        + LAMBDA * (X @ V).square().sum()
        + GAMMA * LAMBDA * V.square().sum()
    )


@pytest.mark.parametrize("norm", ["none", "unit"])
def test_the_gradient_of_the_objective_vanishes(norm: str) -> None:
    data = planted(4)
    X, Y, A = matrices(data, norm)
    V = fitted(with_weights(data, GAMMA, LAMBDA, norm), data).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(V, X, Y, A), V)
    assert gradient.norm() < 1e-10 * (2 * X.mT @ Y @ A).norm()


def test_it_solves_the_normal_equations_written_with_kronecker_products() -> None:
    data = planted(5, classes=6, unseen=2, embedding_dim=3, feature_dim=4)
    X, Y, A = matrices(data)
    left = torch.kron(
        A.mT @ A + LAMBDA * torch.eye(3, dtype=A.dtype), X.mT @ X + GAMMA * torch.eye(4, dtype=X.dtype)
    )
    vec = torch.linalg.solve(left, (X.mT @ Y @ A).mT.reshape(-1))  # columns of V one below the other
    torch.testing.assert_close(fitted(with_weights(data, GAMMA, LAMBDA), data), vec.reshape(3, 4).mT)


def test_weights_equal_those_of_public_code_with_its_settings() -> None:
    """Public code inverts XX' + 10^alpha I and SS' + 10^gamma I, with images as columns and labels in {0, 1}."""
    data = planted(6)
    X, Y, A = matrices(data)
    features, signatures = X.mT, A.mT
    for alpha in (-1, 3):
        for gamma in (-2, 1):
            first = torch.linalg.pinv(features @ features.mT + 10.0**alpha * torch.eye(X.shape[1]).double())
            second = torch.linalg.pinv(
                signatures @ signatures.mT + 10.0**gamma * torch.eye(A.shape[1]).double()
            )
            public = first @ (features @ Y @ signatures.mT) @ second
            ours = fitted(with_weights(data, 10.0**alpha, 10.0**gamma), data)
            assert (ours - public).norm() < 1e-6 * public.norm()


def test_labels_are_zero_and_one() -> None:
    """Labels in {-1, 1}, which the paper names, give other weights; the authors' own code has {0, 1}."""
    data = planted(7)
    X, Y, A = matrices(data)
    ridge_X = X.mT @ X + GAMMA * torch.eye(X.shape[1]).double()
    ridge_A = A.mT @ A + LAMBDA * torch.eye(A.shape[1]).double()
    ours = fitted(with_weights(data, GAMMA, LAMBDA), data)
    for labels, same in ((Y, True), (2 * Y - 1, False)):
        V = torch.linalg.solve(ridge_X, X.mT @ labels @ A) @ torch.linalg.inv(ridge_A)
        assert torch.allclose(ours, V, rtol=1e-6, atol=1e-9) is same


def test_a_planted_map_is_recovered() -> None:
    """Y = X V0 A' has the solution V0 as both weights vanish."""
    generator = torch.Generator().manual_seed(8)
    X, A, V0 = (torch.randn(s, generator=generator).double() for s in ((90, 7), (9, 5), (7, 5)))
    left = Spectrum.of(X.mT @ X).ridge(1e-12, X.mT @ (X @ V0 @ A.mT))
    found = left @ Spectrum.of(A.mT @ A).ridge(1e-12, A.mT).mT
    torch.testing.assert_close(found, V0, rtol=1e-8, atol=1e-8)


def test_duplicated_images_change_nothing() -> None:
    """gamma is a share of X'X, and so doubles with it: (2 G + 2 gamma I)^-1 2 X'Y = (G + gamma I)^-1 X'Y."""
    data = planted(9)
    twice = replace(
        data,
        labels=torch.cat([data.labels, data.labels[data.trainval]]),
        trainval=torch.cat([data.trainval, len(data.labels) + torch.arange(len(data.trainval))]),
        image_ids=torch.cat([torch.arange(len(data.labels)), data.trainval]),
    )
    torch.testing.assert_close(fitted(ESZSL(), twice), fitted(ESZSL(), data))
