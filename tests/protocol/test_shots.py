"""A few images of a class count as much as they help on held-out seen classes, and never what comes from the test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastzsl.data.held_out import SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.methods import METHODS
from fastzsl.methods.context import Context
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import TestScores
from fastzsl.protocol.pipeline import scores_on_held_out
from fastzsl.protocol.shots import (
    ShotWeights,
    choose_shot_weights,
    class_means,
    read_shot_weights,
    similarity,
)
from tests.methods.planted import planted

DRAWS = ClassDraws(2)


def chosen(data, scores: list[TestScores] | None = None) -> ShotWeights | None:
    problems = [SeenClassesOnly(data).problem(h) for h in DRAWS.problems()]
    scores = scores or scores_on_held_out(data, METHODS["eszsl"](), Context(), DRAWS)
    return choose_shot_weights(problems, scores, 0.1)


def test_images_count_where_the_descriptions_say_nothing_and_not_where_they_say_everything(seed: int) -> None:
    data = planted(seed, classes=16, unseen=4, images=12, noise=0.5)
    real = scores_on_held_out(data, METHODS["eszsl"](), Context(), DRAWS)

    def made(scale: float) -> list[TestScores]:
        found = []
        for s in real:
            right = {
                f"{k}_scores": scale * torch.eye(12)[getattr(s, f"{k}_labels")] + 0.01 * torch.randn(
                    len(getattr(s, f"{k}_labels")), 12)
                for k in ("seen", "unseen")
            }  # fmt: skip
            found.append(replace(s, **right))
        return found

    nothing, everything = chosen(data, made(0.0)), chosen(data, made(10.0))
    assert nothing is not None
    assert everything is not None
    assert all(weight > 0 for weight in nothing.weights.values())
    assert all(weight == 0 for weight in everything.weights.values())
    assert set(nothing.weights) == {1, 2, 5}  # of nine training images of a class three must be left to score


def test_the_choice_reads_no_test_image(seed: int) -> None:
    honest = chosen(planted(seed, classes=12, unseen=3, images=8))
    spoilt = chosen(planted(seed, classes=12, unseen=3, images=8, spoil_tests=True))
    assert honest == spoilt


def test_means_are_those_of_the_training_images(seed: int) -> None:
    data = planted(seed, classes=6, unseen=2, images=8)
    found = class_means(data)
    rows = data.read_regions(data.trainval).float().mean(1)
    torch.testing.assert_close(found.centre, rows.mean(0))
    torch.testing.assert_close(found.means[2], rows[data.labels[data.trainval] == 2].mean(0))
    near = similarity(rows, found.centre, torch.cat([found.means, found.centre[None]]))
    assert (near[:, :4].argmax(1) == data.labels[data.trainval]).float().mean() > 0.9
    assert not near[:, 4].any(), "a class without images gets nothing added"


def test_another_number_of_images_takes_the_weight_of_the_nearest_below() -> None:
    weights = ShotWeights(0.5, {1: 2.0, 5: 8.0})
    assert [weights.weight(n) for n in (1, 4, 5, 100)] == [1.0, 1.0, 4.0, 4.0]
    assert read_shot_weights(weights.as_dict(), "gamma.json") == weights
    assert read_shot_weights(None, "gamma.json") is None


@pytest.mark.parametrize("values", [[1], {}, {"spread": 1, "weights": {}}, {"spread": "a", "weights": {"1": 1}},
                                    {"spread": 1, "weights": {"1": -1}}])  # fmt: skip
def test_damaged_weights_are_one_line(values) -> None:
    with pytest.raises(UserError, match=r"gamma\.json: shots are damaged"):
        read_shot_weights(values, "gamma.json")
