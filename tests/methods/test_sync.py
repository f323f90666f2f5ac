"""SynC: losses against loops, V = S^-1 W against training V itself, and what kappa means."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.whitening import Whitened, mean_square, whitened
from fastzsl.methods.method import ClassSet, new_model
from fastzsl.methods.problem import Problem
from fastzsl.methods.sync import (
    Loss,
    SynC,
    Synthesized,
    median_distance,
    one_vs_others,
    pairwise,
    train_classifiers,
    worst,
)
from tests.methods.planted import all_classes, features, planted

DATA = planted(4, classes=12, unseen=4)


def fitted(method: SynC) -> tuple[Synthesized, Problem]:
    method = replace(method, embedding_normalisation="unit")
    problem = Problem(DATA)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    method.fit(model, problem, Context())  # type: ignore[arg-type]
    return model, problem  # type: ignore[return-value]


def test_one_vs_others_equals_loops_and_finite_differences(seed: int) -> None:
    scores, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 2, 2])

    def loop(s: Tensor) -> Tensor:
        return sum(
            (1 - (1 if c == labels[i] else -1) * s[i, c]).clamp_min(0) ** 2
            for i in range(5)
            for c in range(4)
        ) / torch.tensor(20.0)

    value, slopes = one_vs_others(scores, labels)
    torch.testing.assert_close(value, loop(scores).double())
    for i in range(5):
        for c in range(4):
            step = torch.zeros_like(scores)
            step[i, c] = 1e-6
            difference = (loop(scores + step) - loop(scores - step)) / 2e-6
            assert abs(difference - slopes[i, c]) < 1e-7


@pytest.mark.parametrize("structured", [False, True])
def test_worst_class_equals_a_loop(seed: int, structured: bool) -> None:
    scores, labels = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    margins = (
        pairwise(*[torch.randn(4, 3, dtype=torch.float64)] * 2) if structured else 1 - torch.eye(4).double()
    )
    scores = scores.requires_grad_()
    value, slopes = worst(scores.detach(), labels, margins)
    loss = torch.stack(
        [max(margins[labels[i], c] + scores[i, c] for c in range(4)) - scores[i, labels[i]] for i in range(6)]
    ).mean()
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(slopes, torch.autograd.grad(loss, scores)[0])


@pytest.mark.parametrize("norm", ["unit", "standard"])
def test_the_classifiers_are_the_minimum_of_loss_and_penalty(norm: str) -> None:
    method = SynC(feature_norm=norm, log_penalty=-3.0)  # type: ignore[arg-type]
    model, problem = fitted(method)
    X = model.scaling(problem.pooled())
    penalty = 1e-3 * mean_square(X)
    white = whitened(model, problem, Context(), penalty, 2 / 8)
    W = train_classifiers(white, problem.labels, "ovo", torch.zeros(8, 8)).double()
    X = X.double()

    def objective(at: Tensor) -> Tensor:
        return one_vs_others(X @ at.mT, problem.labels)[0] + 0.5 * penalty * at.square().sum()

    slopes = one_vs_others(X @ W.mT, problem.labels)[1]
    gradient = slopes.mT @ X + penalty * W
    assert gradient.norm() < 1e-2 * (penalty * W).norm()
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        step = 0.05 * W.std() * torch.randn(W.shape, generator=generator).double()
        assert objective(W + step) > objective(W)


def test_training_the_bases_themselves_leads_to_the_same_classifiers() -> None:
    """min over V of loss(S V) + penalty / 2 |S V|², by plain L-BFGS over V, against V = S^-1 W."""
    model, problem = fitted(SynC(log_penalty=-2.0, log_kappa=3.0, loss="ovo"))
    X = model.scaling(problem.pooled()).double()
    penalty = 1e-2 * mean_square(X)
    S = model.similarities(model.phantoms.double())
    V = torch.zeros(8, X.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [V], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        short = 1 - (2 * torch.nn.functional.one_hot(problem.labels, 8) - 1) * (X @ (S @ V).mT)
        loss = short.clamp_min(0).square().mean() + 0.5 * penalty * (S @ V).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    found = S @ V.detach()
    torch.testing.assert_close(
        (S @ model.bases.double()), found, atol=2e-3 * float(found.abs().max()), rtol=0
    )


@pytest.mark.parametrize("loss", get_args(Loss))
def test_seen_classes_score_as_they_were_trained_and_rows_sum_to_one(loss: Loss) -> None:
    model, _ = fitted(SynC(loss=loss, log_kappa=0.0))
    S = model.similarities(model.describe(DATA.class_embeddings.double()))
    torch.testing.assert_close(S.sum(1), torch.ones(12).double())
    x = features(DATA, DATA.test_seen, "pooled")
    scores = model.classifier(all_classes(DATA))(x)[:, DATA.seen]
    own = model.similarities(model.phantoms.double()) @ model.bases.double()
    torch.testing.assert_close(scores, model.scaling(x) @ own.float().mT, atol=1e-3, rtol=1e-3)
    assert (DATA.seen[scores.argmax(1)] == DATA.labels[DATA.test_seen]).double().mean() > 0.8


def test_a_large_kappa_gives_a_class_the_classifier_of_its_nearest_seen_class() -> None:
    model, _ = fitted(SynC(log_kappa=14.0))
    x = features(DATA, DATA.test_unseen, "pooled")
    classes = all_classes(DATA)
    scores = model.classifier(classes)(x)
    nearest = torch.cdist(DATA.class_embeddings, DATA.class_embeddings[DATA.seen]).argmin(1)
    torch.testing.assert_close(scores, scores[:, DATA.seen][:, nearest], atol=1e-3, rtol=1e-2)


def test_the_unit_of_distance_is_the_seen_classes_median() -> None:
    model, _ = fitted(SynC())
    seen = DATA.class_embeddings[DATA.seen]
    values = sorted(float((seen[i] - seen[j]).norm()) for i in range(8) for j in range(8) if i != j)
    assert abs(float(model.unit) - values[(len(values) - 1) // 2]) < 1e-6
    assert median_distance(torch.zeros(3, 3)) == 1


def test_a_new_class_leaves_the_scores_of_the_others() -> None:
    model, _ = fitted(SynC())
    classes = all_classes(DATA)
    more = ClassSet(
        torch.cat([classes.descriptions, 9 * torch.ones(1, 16)]),
        torch.cat([classes.training_ids, torch.tensor([-1])]),
    )
    x = features(DATA, DATA.test_unseen, "pooled")
    torch.testing.assert_close(model.classifier(more)(x)[:, :-1], model.classifier(classes)(x))


def test_penalties_are_those_of_the_classifier_in_the_features_themselves(seed: int) -> None:
    model, problem = fitted(SynC())
    white: Whitened = whitened(model, problem, Context(), 1e-3, 0.1)
    U = torch.randn(3, len(white.penalties))
    W = U @ white.back
    X = model.scaling(problem.pooled())
    torch.testing.assert_close(X @ W.mT, white.features @ U.mT, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        (white.penalties * U.square()).sum(), 1e-3 * W.square().sum(), rtol=1e-3, atol=1e-6
    )
