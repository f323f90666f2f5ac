"""A method trained on a data set's training images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.features.backbones import Backbone
from fastzsl.methods.context import Context
from fastzsl.methods.method import Method, Model, new_model
from fastzsl.methods.problem import Problem

_PROBLEMS = "_problems"


def fit_model(
    method: Method, data: ZeroShotDataset, context: Context, backbone: Backbone | None = None
) -> Model:
    """Build the method's model and train it on `data.trainval`.

    Args:
        backbone: only where the method trains it.

    Raises:
        UserError: raised by the training.
    """
    problem = problem_of(data, method)
    dim = backbone.feature_dim if backbone is not None else problem.feature_dim
    model = new_model(method, dim, problem.embedding_dim, context.seed, backbone)
    with _denormals_as_zero():
        method.fit(model.to(context.device), problem, context)
    return model.eval()


def problem_of(data: ZeroShotDataset, method: Method) -> Problem:
    """The part of the data set that the method may see. Trainings that may see the same part get the same object.

    A problem caches pooled features and statistics, so the trainings of a grid search compute them once.
    """
    held: dict[str, Problem] | None = getattr(data, _PROBLEMS, None)
    if held is None:
        held = {}
        object.__setattr__(data, _PROBLEMS, held)  # the data set itself is frozen
    if method.descriptions not in held:
        held[method.descriptions] = Problem(data, method.descriptions)
    return held[method.descriptions]


@contextlib.contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Flush denormal numbers to zero.

    Without manifold alignment the attention ends on a single region. The weights of the other regions, and the
    gradients through them, are then denormal numbers, with which a processor computes many times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
