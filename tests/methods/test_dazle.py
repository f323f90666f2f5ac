"""DAZLE-style attention: against loops over attributes and regions, and its maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastzsl.methods.dazle import Dazle, DazleModel, self_calibration
from fastzsl.methods.method import ClassSet

B, T, D, M, C = 3, 5, 8, 4, 6


def model(**settings: object) -> DazleModel:
    found = Dazle(backend="eager", **settings).build(D, M)  # type: ignore[arg-type]
    found.fit_descriptions(torch.randn(7, M))
    return found.double().eval()


def test_scores_equal_loops_over_attributes_and_regions(seed: int) -> None:
    for attribute_dim in (0, 3):
        found = model(attribute_dim=attribute_dim)
        regions, k = torch.randn(B, T, D).double(), torch.randn(C, M).double()
        scores = found.classifier(ClassSet(k, torch.full((C,), -1)))(regions)
        rows = [
            w if found.vectors is None else found.vectors @ w for w in (found.query, found.value, found.gate)
        ]
        owned = found.attributes_of(k)
        for b in range(B):
            x = [r / r.norm() for r in regions[b]]
            for c in range(C):
                total = 0.0
                for a in range(M):
                    weights = torch.stack([found.attention_scale * rows[0][a] @ r for r in x]).softmax(0)
                    h = sum(w * r for w, r in zip(weights, x))
                    total += (rows[2][a] @ h).sigmoid() * (rows[1][a] @ h) * owned[c, a]
                torch.testing.assert_close(scores[b, c], total)


def test_class_maps_are_attribute_maps_weighted_by_gate_and_share(seed: int) -> None:
    found = model()
    regions, k = torch.randn(B, T, D).double(), torch.randn(C, M).double()
    maps, gate = found.attribute_attention(regions), found.evidence(regions)[1]
    assert maps.shape == (B, M, T)
    torch.testing.assert_close(maps.sum(2), torch.ones(B, M).double())
    owned = found.attributes_of(k).abs()
    for b in range(B):
        for c in range(C):
            weights = gate[b] * owned[c]
            expected = (weights[:, None] * maps[b]).sum(0) / weights.sum()
            torch.testing.assert_close(found.attention(regions, k)[b, c], expected)


def test_a_class_without_any_attribute_looks_as_all_attributes_do(seed: int) -> None:
    found = model(embedding_normalisation="none")
    regions = torch.randn(B, T, D).double()
    maps = found.attention(regions, torch.zeros(1, M).double())
    torch.testing.assert_close(maps[:, 0], found.attribute_attention(regions).mean(1))


def test_the_self_calibration_equals_its_definition(seed: int) -> None:
    scores = torch.randn(5, 7).double()
    p = (scores + torch.tensor([0.0] * 4 + [1.0] * 3).double()).softmax(1)
    torch.testing.assert_close(self_calibration(scores, 4), -p[:, 4:].sum(1).log().mean())


def test_long_embeddings_are_replaced_by_coordinates_that_keep_the_inner_products(seed: int) -> None:
    found = Dazle(attributes=10, backend="eager").build(D, 40)
    seen = torch.randn(8, 40)
    found.fit_descriptions(seen)
    assert found.attributes == 10
    embedded, reduced = found.describe(seen), found.attributes_of(seen)
    torch.testing.assert_close(reduced @ reduced.mT, embedded @ embedded.mT, atol=1e-4, rtol=1e-4)
    outside = F.normalize(torch.randn(1, 40), dim=1)
    directions = found.directions[:, found.directions.any(0)]
    assert directions.shape[1] < 10  # no direction without a seen class along it
    torch.testing.assert_close(found.directions.mT @ outside[0], found.directions.mT @ (
        directions @ (directions.mT @ outside[0])
    ), atol=1e-4, rtol=1e-4)  # fmt: skip
