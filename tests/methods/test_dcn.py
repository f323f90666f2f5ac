"""DCN: its two loss terms, its scores without dropout, and features that never vary."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from fastzsl.features.sources import MemoryRegions
from fastzsl.methods.context import Context
from fastzsl.methods.dcn import DCN, DCNObjective, entropy
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import all_classes, planted

METHOD = DCN(epochs=2, hidden=16, lr=1e-2)
WHOLE = BatchPart(slice(None), 12)


def objective(weight: float, dropout: float = 0.0) -> DCNObjective:
    model = replace(METHOD, dropout=dropout).build(9, 4)
    seen, unseen = model.targets(torch.randn(5, 4)), model.targets(torch.randn(3, 4))
    return DCNObjective(model, seen, unseen if weight else None, 2.0, 0.5, weight)


def test_without_the_entropy_the_loss_is_the_cross_entropy_of_scaled_logits(seed: int) -> None:
    found, x, y = objective(0.0), torch.randn(12, 9), torch.randint(5, (12,))
    logits = 2.0 * found.model.embed(x) @ found.seen.mT
    torch.testing.assert_close(found(x, y, WHOLE)["loss"], F.cross_entropy(logits, y))


def test_the_entropy_equals_a_loop_and_has_its_gradient(seed: int) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    expected = 0.0
    for row in logits.detach().tolist():
        total = sum(math.exp(v) for v in row)
        expected -= sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in row) / 6
    torch.testing.assert_close(entropy(logits).item(), expected)
    assert torch.autograd.gradcheck(entropy, logits)


def test_the_entropy_falls_when_it_is_trained_alone(seed: int) -> None:
    found, x, y = objective(1.0), torch.randn(12, 9), torch.zeros(12, dtype=torch.long)
    optimizer = torch.optim.Adam(found.model.parameters(), 1e-2)
    values = []
    for _ in range(60):
        term = found(x, y, WHOLE)["entropy"]
        values.append(term.item())
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0]


def test_dropout_is_on_in_training_and_off_in_scores(seed: int) -> None:
    data = planted(4)
    model = new_model(METHOD, 48, 16, 0)
    METHOD.fit(model, Problem(data, "all"), Context())
    score = model.eval().classifier(all_classes(data))
    x = torch.rand(5, 48)
    assert torch.equal(score(x), score(x))
    model.train()
    assert not torch.equal(model.embed(x), model.embed(x))


def test_a_feature_that_never_varies_changes_nothing_and_divides_by_nothing(seed: int) -> None:
    data = planted(5)
    maps = data.regions.regions(torch.arange(len(data.labels))).mT.unflatten(2, (2, 2)).clone()
    maps[:, 3] = 7.0
    constant = data.with_regions(MemoryRegions(maps))
    model = new_model(METHOD, 48, 16, 0)
    METHOD.fit(model, Problem(constant, "all"), Context())
    score = model.eval().classifier(all_classes(data))
    x = torch.rand(5, 48)
    other = x.clone()
    other[:, 3] += 100
    assert torch.isfinite(score(x)).all()
    assert torch.equal(score(x), score(other))


def test_it_declares_the_unseen_descriptions_only_where_it_reads_them() -> None:
    assert DCN().descriptions == "all"
    assert DCN(entropy_weight=0.0).descriptions == "seen"
