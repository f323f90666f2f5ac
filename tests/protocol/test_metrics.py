"""The protocol's figures, against definitions written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastzsl.protocol.calibration import best_common_gamma, choose_gamma
from fastzsl.protocol.metrics import (
    TestScores,
    evaluate,
    generalised,
    harmonic_mean,
    per_class_accuracy,
    seen_unseen_curve,
)

SEEN, UNSEEN = torch.tensor([0, 2, 3]), torch.tensor([1, 4])


def draw(seed: int, pictures: int = 60, ties: bool = False) -> TestScores:
    rng = np.random.default_rng(seed)

    def scores(classes: torch.Tensor, boost: float) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(rng.choice(classes.numpy(), pictures))
        found = torch.from_numpy(rng.normal(size=(pictures, 5)))
        found[torch.arange(pictures), labels] += boost
        return (found * 2).round() / 2 if ties else found, labels

    (s, ys), (u, yu) = scores(SEEN, 1.5), scores(UNSEEN, 1.0)
    return TestScores(s, ys, u, yu, SEEN, UNSEEN)


def loop_accuracy(
    scores: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor, allowed: list[int]
) -> float:
    accuracies = []
    for c in classes.tolist():
        own = [i for i in range(len(labels)) if labels[i] == c]
        right = [i for i in own if max(allowed, key=lambda k: float(scores[i, k])) == c]
        accuracies.append(len(right) / len(own))
    return sum(accuracies) / len(accuracies)


def test_all_figures_against_loops(seed: int) -> None:
    data, gamma = draw(seed), 0.37
    bias = torch.zeros(5, dtype=torch.float64)
    bias[UNSEEN] = gamma
    every = [0, 1, 2, 3, 4]
    results = evaluate(data, gamma)
    assert results.T1 == pytest.approx(loop_accuracy(data.unseen_scores, data.unseen_labels, UNSEEN, [1, 4]))
    assert results.U == pytest.approx(
        loop_accuracy(data.unseen_scores + bias, data.unseen_labels, UNSEEN, every)
    )
    assert results.S == pytest.approx(loop_accuracy(data.seen_scores + bias, data.seen_labels, SEEN, every))
    assert results.U0 == pytest.approx(loop_accuracy(data.unseen_scores, data.unseen_labels, UNSEEN, every))
    assert results.S0 == pytest.approx(loop_accuracy(data.seen_scores, data.seen_labels, SEEN, every))
    assert results.H == pytest.approx(2 * results.U * results.S / (results.U + results.S))


def test_accuracy_averages_over_the_classes_of_the_split_only() -> None:
    """A class that is predicted but not in the split must not count as a zero."""
    predicted, labels = torch.tensor([0, 1, 4, 4]), torch.tensor([0, 0, 4, 4])
    assert per_class_accuracy(predicted, labels, torch.tensor([0, 4])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("ties", [False, True])
def test_curve_is_exact_at_every_gamma(seed: int, ties: bool) -> None:
    data = draw(seed, ties=ties)
    curve = seen_unseen_curve(data)
    middles = (curve.breaks[1:] + curve.breaks[:-1]) / 2
    ends = torch.tensor([float(curve.breaks[0]) - 1, float(curve.breaks[-1]) + 1])
    for gamma in [*middles.tolist(), *ends.tolist()]:
        piece = int(torch.searchsorted(curve.breaks, torch.tensor(gamma, dtype=torch.float64)))
        U, S = generalised(data, gamma)
        assert float(curve.U[piece]) == pytest.approx(U, abs=1e-12)
        assert float(curve.S[piece]) == pytest.approx(S, abs=1e-12)


def test_area_is_the_limit_of_a_fine_grid(seed: int) -> None:
    data = draw(seed, pictures=25)
    gammas = np.linspace(-8, 8, 20001)
    points = np.array([generalised(data, g) for g in gammas[::10]])
    grid = float(np.trapezoid(points[:, 1], points[:, 0]))
    assert seen_unseen_curve(data).area == pytest.approx(grid, abs=0.01)


def test_area_of_perfect_and_of_hopeless_scores() -> None:
    labels_s, labels_u = torch.tensor([0, 2, 3]), torch.tensor([1, 4])
    perfect = TestScores(torch.eye(5)[labels_s], labels_s, torch.eye(5)[labels_u], labels_u, SEEN, UNSEEN)
    assert seen_unseen_curve(perfect).area == pytest.approx(1.0)
    hopeless = TestScores(-torch.eye(5)[labels_s], labels_s, -torch.eye(5)[labels_u], labels_u, SEEN, UNSEEN)
    assert seen_unseen_curve(hopeless).area == 0.0


def test_best_gamma_reaches_the_highest_h(seed: int) -> None:
    data = draw(seed)
    best = max(harmonic_mean(*reversed(generalised(data, g))) for g in np.linspace(-6, 6, 1201))
    found = evaluate(data, seen_unseen_curve(data).best_gamma())
    assert found.H >= best - 1e-12
    assert evaluate(data, best_common_gamma([data])).H == pytest.approx(found.H)


def test_common_gamma_maximises_the_mean_over_problems(seed: int) -> None:
    problems = [draw(seed + i) for i in range(3)]
    gamma = best_common_gamma(problems)

    def mean(g: float) -> float:
        return sum(evaluate(p, g).H for p in problems) / 3

    assert mean(gamma) >= max(mean(g) for g in np.linspace(-6, 6, 301)) - 1e-12


def test_gamma_is_chosen_without_any_test_picture() -> None:
    """The trainer is handed problems in which no test picture and no unseen class exists."""
    from fastzsl.data.formats.shapes import shapes

    data = shapes()
    unseen_rows = {tuple(row) for row in data.class_embeddings[data.unseen].tolist()}
    test_pictures = set(data.test_seen.tolist()) | set(data.test_unseen.tolist())
    seen_problems = []

    def train_and_score(problem):  # type: ignore[no-untyped-def]
        assert not test_pictures & set(problem.picture_ids.tolist())
        assert not unseen_rows & {tuple(row) for row in problem.class_embeddings.tolist()}
        assert set(problem.picture_ids.tolist()) == set(data.trainval.tolist())
        seen_problems.append(tuple(problem.class_names[i] for i in problem.unseen.tolist()))
        scores = torch.rand(len(problem.labels), problem.num_classes)
        return TestScores(
            scores[problem.test_seen], problem.labels[problem.test_seen],
            scores[problem.test_unseen], problem.labels[problem.test_unseen], problem.seen, problem.unseen,
        )  # fmt: skip

    choose_gamma(data, train_and_score, folds=3, seed=0)
    assert len(set(seen_problems)) == 3
    assert choose_gamma(data, train_and_score, folds=0, seed=0) == 0.0
