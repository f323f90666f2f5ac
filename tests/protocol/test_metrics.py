"""The protocol's figures, against definitions written as loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_problem import SETTINGS, small_problem

from fastzsl.data.held_out import SeenClassesOnly
from fastzsl.methods.context import Context
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import (
    TestScores,
    evaluate,
    generalised,
    harmonic_mean,
    per_class_accuracy,
    seen_unseen_curve,
)
from fastzsl.protocol.pipeline import scores_on_held_out

SEEN, UNSEEN = torch.tensor([0, 2, 3]), torch.tensor([1, 4])


def draw(seed: int, images: int = 60, ties: bool = False) -> TestScores:
    rng = np.random.default_rng(seed)

    def scores(classes: torch.Tensor, boost: float) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(rng.choice(classes.numpy(), images))
        found = torch.from_numpy(rng.normal(size=(images, 5)))
        found[torch.arange(images), labels] += boost
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
    data = draw(seed, images=25)
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
    assert evaluate(data, best_common_gamma([data])).H >= best - 1e-12


def test_common_gamma_maximises_the_mean_over_problems(seed: int) -> None:
    problems = [draw(seed + i) for i in range(3)]
    gamma = best_common_gamma(problems)

    def mean(g: float) -> float:
        return sum(evaluate(p, g).H for p in problems) / 3

    assert mean(gamma) >= max(mean(g) for g in np.linspace(-6, 6, 301)) - 1e-12


def test_gamma_is_chosen_on_problems_that_hold_no_test_image() -> None:
    data = small_problem()
    draws = ClassDraws(3, seed=1)
    problems = [SeenClassesOnly(data).problem(held_out) for held_out in draws.problems()]
    tests = set(data.test_seen.tolist()) | set(data.test_unseen.tolist())
    assert len({problem.class_names for problem in problems}) == 3
    for problem in problems:
        assert not tests & set(problem.image_ids.tolist())
    data.regions.read.clear()
    scores = scores_on_held_out(data, SETTINGS.changed(epochs=1).method, Context(), draws)
    assert data.regions.read <= set(data.trainval.tolist())
    assert [len(s.unseen) for s in scores] == [len(p.unseen) for p in problems]
    assert best_common_gamma([]) == 0.0, "no problems, no calibration"


def test_a_model_whose_scores_depend_on_the_class_set_is_judged_by_its_own_conventional_scores() -> None:
    scores = draw(1)
    own = torch.nn.functional.one_hot(torch.searchsorted(UNSEEN, scores.unseen_labels), 2).float()
    judged = replace(scores, conventional_scores=own)
    assert evaluate(judged, 0.0).T1 == 1.0
    assert evaluate(judged, 0.0).H == evaluate(scores, 0.0).H


def test_per_class_accuracy_takes_no_square_memory() -> None:
    count = 200_000
    labels = torch.arange(count)
    assert per_class_accuracy(labels.clone(), labels, labels).mean() == 1.0
