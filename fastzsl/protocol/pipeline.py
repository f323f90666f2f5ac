"""Training and scoring for train, tune and reproduce, and for the choice of gamma and of epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import SeenClassesOnly
from fastzsl.features.backbones import Backbone
from fastzsl.methods.context import Context
from fastzsl.methods.method import Method, Model
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import TestScores
from fastzsl.protocol.scoring import test_scores
from fastzsl.training.fit import fit_model


class Fitted(NamedTuple):
    """A trained model, its scores, and the seconds that training and scoring took."""

    model: Model
    scores: TestScores
    fit_seconds: float
    score_seconds: float


def fit_and_score(
    data: ZeroShotDataset, method: Method, context: Context, backbone: Backbone | None = None
) -> Fitted:
    """Train a method on a data set's training images and score its test splits.

    Args:
        data: the real data set, or one of held-out seen classes.
        context: seed, device and so on.
        backbone: only where the method trains it.

    Raises:
        UserError: raised by the training.
    """
    started = time.perf_counter()
    model = fit_model(method, data, context, backbone)
    trained = time.perf_counter()
    scores = test_scores(model, data)
    return Fitted(model, scores, trained - started, time.perf_counter() - trained)


def scores_on_held_out(
    data: ZeroShotDataset,
    method: Method,
    context: Context,
    draws: ClassDraws,
    new_backbone: Callable[[], Backbone | None] = lambda: None,
    done: Callable[[], None] = lambda: None,
) -> list[TestScores]:
    """Train on problems made of seen classes alone; `best_common_gamma` chooses on what this returns.

    Args:
        data: the full data set; the trainings get parts of it that cannot reach a test image.
        context: its checkpoint and listener are not used.
        draws: the problems.
        new_backbone: makes a new backbone for each training, if the method trains it.
        done: called after each problem.
    """
    guarded, found = SeenClassesOnly(data), []
    for held_out in draws.problems():
        own = replace(context, checkpoint=None, listener=Context().listener)
        found.append(fit_and_score(guarded.problem(held_out), method, own, new_backbone()).scores)
        done()
    return found
