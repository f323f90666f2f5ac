"""Relation Network: the factorised first layer, its gradients, and what it can memorise."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastzsl.methods import relation_net
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import ClassSet
from fastzsl.methods.relation_net import RelationModel, RelationNet, RelationObjective

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
    for _ in range(500):
        loss = objective(x, y, BatchPart(slice(None), 20))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3
