"""Temperatures give back the probabilities that labels were drawn from; thresholds separate known from unknown."""

from __future__ import annotations

import math

import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.protocol.calibration import calibrate
from fastzsl.protocol.metrics import TestScores
from fastzsl.protocol.probabilities import Probabilities, fit_probabilities, read_probabilities

SEEN, UNSEEN, IMAGES = 8, 4, 800


def drawn(seed: int, temperature: float) -> TestScores:
    """Labels drawn from softmax(scores / temperature), scores of small spread as cosines have."""
    generator = torch.Generator().manual_seed(seed)

    def rows(columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
        scores = 0.1 * torch.randn(IMAGES, SEEN + UNSEEN, generator=generator)
        labels = (scores[:, columns] / temperature).softmax(1).multinomial(1, generator=generator)[:, 0]
        return scores, labels + (columns.start or 0)

    every = slice(0, SEEN + UNSEEN)
    scores, labels = rows(every)
    own = labels < SEEN
    return TestScores(
        scores[own],
        labels[own],
        scores[~own],
        labels[~own],
        torch.arange(SEEN),
        torch.arange(SEEN, SEEN + UNSEEN),
    )


@pytest.mark.parametrize("temperature", [0.03, 0.2])
def test_the_temperature_is_found_and_its_calibration_error_is_small(seed: int, temperature: float) -> None:
    found = fit_probabilities([drawn(seed + i, temperature) for i in range(3)], 0.0)
    for own in found.values():
        assert math.log(own.temperature / temperature) == pytest.approx(0, abs=0.25)
        assert own.calibration_error < 0.12
    scores = torch.randn(5, 7)
    torch.testing.assert_close(found["among_all"].of(scores).sum(1), torch.ones(5))


def test_probabilities_use_gamma_and_do_not_depend_on_the_unit_of_the_scores(seed: int) -> None:
    problem = drawn(seed, 0.05)
    shifted = problem.seen_scores.clone(), problem.unseen_scores.clone()
    for rows in shifted:
        rows[:, SEEN:] -= 0.3
    moved = TestScores(shifted[0], problem.seen_labels, shifted[1], *list(vars(problem).values())[3:6])
    plain = fit_probabilities([problem], 0.0)["among_all"]
    assert fit_probabilities([moved], 0.3)["among_all"].temperature == pytest.approx(
        plain.temperature, rel=0.02
    )
    scaled = {k: 50 * v if k in ("seen_scores", "unseen_scores") else v for k, v in vars(problem).items()}
    larger = fit_probabilities([TestScores(**scaled)], 0.0)["among_all"]
    assert larger.temperature == pytest.approx(50 * plain.temperature, rel=0.02)
    assert larger.calibration_error == pytest.approx(plain.calibration_error, abs=0.02)


def test_images_of_classes_that_are_no_candidates_are_rejected(seed: int) -> None:
    torch.manual_seed(seed)
    labels = torch.arange(SEEN + UNSEEN).repeat(40)
    scores = 0.1 * torch.rand(len(labels), SEEN + UNSEEN) + torch.eye(SEEN + UNSEEN)[labels]
    own = labels < SEEN
    problem = TestScores(
        scores[own],
        labels[own],
        scores[~own],
        labels[~own],
        torch.arange(SEEN),
        torch.arange(SEEN, SEEN + UNSEEN),
    )
    for found in fit_probabilities([problem, problem], 0.0).values():
        assert found.accepted == found.rejected == 1.0
        known, unknown = torch.zeros(1, 6), torch.zeros(1, 6)
        known[0, 2] = 1.0
        unknown += 0.05
        assert found.none_of_these(torch.cat([known, unknown])).tolist() == [False, True]


def test_no_problems_no_probabilities() -> None:
    assert calibrate([]) == {"gamma": 0.0, "held_out": {}, "probabilities": {}}


def test_they_are_saved_and_read_again(seed: int) -> None:
    problems = [drawn(seed, 0.1)]
    saved = calibrate(problems)
    again = read_probabilities(saved["probabilities"], "gamma.json")
    assert again == fit_probabilities(problems, saved["gamma"])
    assert read_probabilities(None, "gamma.json") == {}
    assert 0 < saved["held_out"]["T1"] <= 1


@pytest.mark.parametrize(
    "values", [[1], {"among_all": 1}, {"among_all": {"heat": 1}},
               {"among_all": {"temperature": "hot", "calibration_error": 0}},
               {"among_all": {"temperature": -1.0, "calibration_error": 0.0}}]
)  # fmt: skip
def test_damaged_ones_are_one_line(values) -> None:
    with pytest.raises(UserError, match=r"gamma\.json: probabilities are damaged"):
        read_probabilities(values, "gamma.json")


def test_without_a_threshold_nothing_is_rejected() -> None:
    assert Probabilities(1.0, 0.0).none_of_these(torch.zeros(2, 3)) is None
