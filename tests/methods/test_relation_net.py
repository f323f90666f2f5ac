"""Relation Network: the factorised first layer, its gradients, and what it can memorise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastzsl.methods import relation_net
from fastzsl.methods.context import Context
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import ClassSet, new_model
from fastzsl.methods.problem import Problem
from fastzsl.methods.relation_net import RelationModel, RelationNet, RelationObjective, equal_pairs
from tests.methods.planted import planted

D, M, C, B = 6, 4, 5, 8
WHOLE = BatchPart(slice(None), B)


def model() -> RelationModel:
    return RelationNet(class_hidden=7, hidden=9, feature_norm="none").build(D, M).double()


def concatenated(found: RelationModel, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Every pair by itself, class first."""
    rows = []
    for image in x:
        for description in k:
            unit = F.normalize(description[None], dim=1)[0]
            pair = torch.cat([found.class_branch(found.embedding_scale * unit), image])
            rows.append(found.second(found.first(pair).relu()))
    return torch.stack(rows).view(len(x), len(k))


def test_the_factorised_comparison_equals_the_concatenated_one(seed: int, monkeypatch) -> None:
    found, x, k = model(), torch.randn(B, D).double(), torch.randn(C, M).double()
    for at_once in (1 << 24, 2 * B * 9):  # all classes at once, and two at a time
        monkeypatch.setattr(relation_net, "PAIRS_AT_ONCE", at_once)
        scores = found.classifier(ClassSet(k, torch.full((C,), -1)))(x)
        torch.testing.assert_close(scores, concatenated(found, x, k), atol=1e-12, rtol=1e-12)


def test_the_loss_has_the_gradient_of_finite_differences(seed: int) -> None:
    found, y = model(), torch.randint(C, (B,))
    objective = RelationObjective(found, torch.randn(C, M).double())
    x = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda inputs: objective(inputs, y, WHOLE)["loss"], x)


def test_with_one_class_in_the_batch_the_loss_is_the_square_of_what_is_missing(seed: int) -> None:
    found, k, x = model(), torch.randn(C, M).double(), torch.randn(B, D).double()
    loss = RelationObjective(found, k)(x, torch.full((B,), 2), WHOLE)["loss"]
    relation = concatenated(found, x, k[2:3]).sigmoid()
    torch.testing.assert_close(loss, (1 - relation).square().mean())


def test_it_memorises_a_few_images(seed: int) -> None:
    found = RelationNet(class_hidden=64, hidden=64, embedding_scale=3.0).build(32, 16)
    x, y = torch.randn(20, 32), torch.arange(20) % 5
    objective = RelationObjective(found, torch.randn(5, 16))
    optimizer = torch.optim.Adam(found.parameters(), 3e-3)
    for _ in range(1000):
        loss = objective(x, y, BatchPart(slice(None), 20))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-2, "all outputs alike have 0.16"


def test_equal_pairs_is_one_over_the_mean_number_of_classes_in_a_batch(seed: int) -> None:
    labels = torch.arange(7).repeat_interleave(torch.arange(1, 8))
    draws = labels[torch.randint(len(labels), (4000, 5))]
    present = torch.tensor([len(draw.unique()) for draw in draws]).double()
    error = present.std() / len(draws) ** 0.5
    assert abs(1 / equal_pairs(labels, 5) - present.mean()) < 6 * error
    assert 0 < equal_pairs(torch.zeros(4, dtype=torch.long), 3) < 1, "the logit is finite with a single class"


@pytest.mark.parametrize("start", range(3))
def test_training_does_not_stay_where_all_outputs_are_alike(start: int) -> None:
    """Three epochs; the best constant output has the loss share · (1 - share)."""
    problem = Problem(planted(start, classes=80, images=20, feature_dim=96, embedding_dim=64))
    method = RelationNet(class_hidden=256, hidden=256, epochs=3, lr=1e-3)
    losses: list[float] = []
    found = new_model(method, problem.feature_dim, problem.embedding_dim, start)
    method.fit(found, problem, Context(seed=start, listener=lambda step, total, f: losses.append(f["loss"])))
    share = float(equal_pairs(problem.labels, method.batch_size))
    assert sum(losses[-32:]) / 32 < 0.5 * share * (1 - share)
