"""ALE, SJE and DeViSE compute their papers' losses, checked against loops in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fastzsl.methods.ale import ALE, harmonic_sums
from fastzsl.methods.context import Context
from fastzsl.methods.devise import DeViSE
from fastzsl.methods.engines.loop import epoch_order
from fastzsl.methods.engines.ranking import RankingMethod, ranking_gradient
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from fastzsl.methods.sje import SJE
from tests.methods.planted import features, planted, unseen_classes

ALL: list[RankingMethod] = [cls(lr=1.0, embedding_normalisation="unit") for cls in (ALE, SJE, DeViSE)]


def by_loops(method: RankingMethod, scores: Tensor, label: int) -> tuple[float, list[float]]:
    """Loss of one image and its derivative by the scores, class by class."""
    classes = len(scores)
    margins = {c: method.margin + float(scores[c] - scores[label]) for c in range(classes) if c != label}
    violators = [c for c, s in margins.items() if s > 0]
    slopes = [0.0] * classes
    if not violators:
        return 0.0, slopes
    if isinstance(method, SJE):
        weights = {max(margins, key=lambda c: margins[c]): 1.0}
    elif isinstance(method, ALE):
        rank = len(violators)
        weights = dict.fromkeys(violators, sum(1 / i for i in range(1, rank + 1)) / rank)
    else:
        weights = dict.fromkeys(violators, 1 / (classes - 1))
    for c, weight in weights.items():
        slopes[c] += weight
        slopes[label] -= weight
    return sum(weight * margins[c] for c, weight in weights.items()), slopes


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
def test_loss_and_gradient_equal_loops(seed: int, method: RankingMethod, classes: int, margin: float) -> None:
    method = replace(method, margin=margin)
    labels = torch.arange(12) % classes
    scores = 2 * torch.randn(12, classes, dtype=torch.float64)
    scores[0] = 0.0  # every margin is exactly `margin`
    scores[1, labels[1]] = 50.0  # no violation
    scores[2] = -margin * torch.arange(classes).ne(labels[2])  # ties at s_c = 0, which violate nothing
    values, slopes = ranking_gradient(scores, labels, margin, method.loss)
    for i in range(12):
        loss, gradient = by_loops(method, scores[i], int(labels[i]))
        assert abs(values[i] - loss) < 1e-12
        if not (i == 0 and isinstance(method, SJE)):  # all are worst: any of them is a subgradient
            torch.testing.assert_close(slopes[i], torch.tensor(gradient, dtype=torch.float64))
    assert (slopes.sum(1).abs() < 1e-12).all()
    assert values[1] == values[2] == 0
    assert not slopes[1:3].any()


def test_rank_weights_are_partial_harmonic_sums() -> None:
    assert harmonic_sums(torch.empty(1, 4, dtype=torch.float64)).tolist() == pytest.approx(
        [0, 1, 1 + 1 / 2, 1 + 1 / 2 + 1 / 3, 1 + 1 / 2 + 1 / 3 + 1 / 4]
    )


def test_sje_pushes_at_most_one_class(seed: int) -> None:
    scores, labels = torch.randn(30, 6), torch.arange(30) % 6
    _, slopes = ranking_gradient(scores, labels, 1.0, SJE().loss)
    assert ((slopes > 0).sum(1) <= 1).all()


def weights(method: RankingMethod, data, **changes) -> Tensor:
    method = replace(method, **changes)
    problem = Problem(data)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    method.fit(model, problem, Context(seed=3))  # type: ignore[arg-type]
    return model.weight


def test_the_three_are_one_method_for_two_classes() -> None:
    data = planted(4, classes=5, unseen=3)
    ale, sje, devise = (weights(m, data, lr=0.5, epochs=3, batch_size=4) for m in ALL)
    assert ale.abs().max() > 0
    torch.testing.assert_close(ale, sje)
    torch.testing.assert_close(ale, devise)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_training_equals_steps_on_the_weights_themselves(method: RankingMethod) -> None:
    """One image at a time in the same order, W += lr x (…)' in float64, against V in the span of the classes."""
    data = planted(5, classes=7, unseen=2, images=5, feature_dim=9, embedding_dim=6)
    settings = {"lr": 0.05, "epochs": 2, "batch_size": 1, "init_scale": 1.0}
    found = weights(method, data, **settings)
    problem = Problem(data)
    X = torch.nn.functional.normalize(problem.pooled().double(), dim=1)
    A = torch.nn.functional.normalize(problem.seen_descriptions.double(), dim=1)
    W = torch.randn(9, 6, generator=torch.Generator().manual_seed(3)).double() / 3
    for epoch in range(2):
        for i in epoch_order(len(X), 3, epoch).tolist():
            _, slopes = by_loops(method, X[i] @ W @ A.mT, int(problem.labels[i]))
            W -= 0.05 * torch.outer(X[i], torch.tensor(slopes, dtype=torch.float64) @ A)
    torch.testing.assert_close(found.double(), W, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_met_margins_leave_the_weights_alone(method: RankingMethod) -> None:
    data = planted(6)
    start = weights(method, data, init_scale=1.0, margin=0.0, lr=1e-30, epochs=1)
    assert torch.equal(weights(method, data, init_scale=0.0, margin=0.0, epochs=1), torch.zeros_like(start))


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)
def test_a_separable_planted_problem_is_learnt(method: RankingMethod) -> None:
    data = planted(7, classes=60, noise=0.02, images=10)
    losses = []
    problem = Problem(data)
    method = replace(method, lr=30.0 if isinstance(method, DeViSE) else 10.0, epochs=60)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    context = Context(listener=lambda step, total, figures: losses.append(figures["loss"]))
    method.fit(model, problem, context)  # type: ignore[arg-type]
    assert losses[-1] < 0.05 * losses[0]
    scores = model.classifier(unseen_classes(data))(features(data, data.test_unseen, "pooled"))
    assert (data.unseen[scores.argmax(1)] == data.labels[data.test_unseen]).double().mean() > 0.9


def test_a_longer_training_goes_on_where_a_shorter_one_ended() -> None:
    data = planted(8)
    problem = Problem(data)
    found = []
    for epochs in (2, 5, 3):
        method = replace(ALE(), epochs=epochs)
        model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
        steps: list[int] = []
        method.fit(model, problem, Context(listener=lambda step, *_, heard=steps: heard.append(step)))  # type: ignore[arg-type]
        found.append((steps, model.weight))
    assert [steps for steps, _ in found] == [[1, 2], [3, 4, 5], [3]]
    for epochs, (_, weight) in zip((2, 5, 3), found):
        alone = replace(ALE(), epochs=epochs)
        model = new_model(alone, problem.feature_dim, problem.embedding_dim, 0)
        alone.fit(model, Problem(data), Context())  # type: ignore[arg-type]
        assert torch.equal(model.weight, weight)


def test_a_training_continues_from_its_checkpoint_bit_for_bit(tmp_path) -> None:
    data = planted(9)

    class Killed(Exception):
        pass

    def kill(step, *_):
        if step == 4:
            raise Killed

    def fit(listener) -> Tensor:
        problem = Problem(data)
        model = new_model(ALE(epochs=7), problem.feature_dim, problem.embedding_dim, 0)
        ALE(epochs=7).fit(model, problem, Context(checkpoint=tmp_path / "kept", listener=listener))  # type: ignore[arg-type]
        return model.weight

    with pytest.raises(Killed):
        fit(kill)
    steps: list[int] = []
    continued = fit(lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6, 7]
    (tmp_path / "kept").unlink()
    assert torch.equal(continued, fit(lambda *_: None))
