"""The losses are equations 4 to 7, checked against loops."""

from __future__ import annotations

import math

import pytest
import torch

from fastzsl import AttendedAutoencoder, losses


def test_equation_4_classification(seed: int) -> None:
    scores, labels = torch.randn(3, 4), torch.tensor([2, 0, 3])
    by_hand = (
        -sum(
            math.log(math.exp(scores[i, y]) / sum(math.exp(v) for v in scores[i]))
            for i, y in enumerate(labels)
        )
        / 3
    )
    assert float(losses.classification(scores, labels)) == pytest.approx(by_hand, rel=1e-5)


def test_equation_5_manifold_alignment(seed: int) -> None:
    H, K = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    by_hand = sum(
        (sum(float(H[a, i] * H[b, i]) for i in range(5)) - sum(float(K[a, i] * K[b, i]) for i in range(2)))
        ** 2
        for a in range(3)
        for b in range(3)
    )
    assert float(losses.manifold_alignment(H, K, reduction="sum")) == pytest.approx(by_hand)
    assert float(losses.manifold_alignment(H, K)) == pytest.approx(by_hand / 9)


def test_equation_6_semantic_reconstruction(seed: int) -> None:
    R, K = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    by_hand = sum(float(R[c, i] - K[c, i]) ** 2 for c in range(3) for i in range(2))
    assert float(losses.semantic_reconstruction(R, K, reduction="sum")) == pytest.approx(by_hand)
    assert float(losses.semantic_reconstruction(R, K)) == pytest.approx(by_hand / 3)


def test_equation_7_adds_weighted_terms_and_skips_those_of_weight_zero(seed: int) -> None:
    model = AttendedAutoencoder(8, 5)
    regions, K = torch.randn(4, 9, 8), torch.randn(6, 5)
    seen, labels = torch.tensor([0, 2, 3, 5]), torch.tensor([5, 0, 3, 3])
    terms = model.loss(regions, labels, K, seen, alpha=0.3, eta=0.7)
    total = (
        terms["classification"] + 0.3 * terms["manifold_alignment"] + 0.7 * terms["semantic_reconstruction"]
    )
    torch.testing.assert_close(terms["loss"], total)
    assert set(model.loss(regions, labels, K, seen, alpha=0, eta=0)) == {"loss", "classification"}


def test_reconstruction_sees_unseen_classes_and_alignment_does_not(seed: int) -> None:
    """Equation 6 runs over all classes, equations 4 and 5 over the seen ones."""
    model = AttendedAutoencoder(8, 5).eval()
    regions, seen, labels = torch.randn(2, 9, 8), torch.tensor([0, 1]), torch.tensor([0, 1])
    K = torch.randn(3, 5)
    moved = K.clone()
    moved[2] = torch.randn(5)
    before, after = (model.loss(regions, labels, k, seen) for k in (K, moved))
    assert torch.equal(before["classification"], after["classification"])
    assert torch.equal(before["manifold_alignment"], after["manifold_alignment"])
    assert not torch.equal(before["semantic_reconstruction"], after["semantic_reconstruction"])
    before, after = (model.loss(regions, labels, k, seen, reconstruct="seen") for k in (K, moved))
    assert torch.equal(before["semantic_reconstruction"], after["semantic_reconstruction"])
    assert before["semantic_reconstruction"] > 0
