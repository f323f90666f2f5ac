"""GAZSL: pivots and the vote of the neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastzsl.methods.gazsl import pivot_distance, vote


def test_the_pivot_distance_is_zero_where_batch_means_are_the_real_ones(seed: int) -> None:
    means, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 0, 3, 3, 4])
    shift = torch.randn(3, dtype=torch.float64)
    made = means[labels]
    made[0] += shift
    made[1] -= shift
    assert pivot_distance(made, labels, means) < 1e-12


def test_the_pivot_distance_equals_a_loop(seed: int) -> None:
    means, labels = torch.randn(5, 3, dtype=torch.float64), torch.randint(5, (7,))
    made = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    expected = sum((made[labels == c].mean(0) - means[c]).norm() for c in set(labels.tolist())) / 5
    torch.testing.assert_close(pivot_distance(made, labels, means), expected)
    assert torch.autograd.gradcheck(lambda x: pivot_distance(x, labels, means), made)


def test_the_vote_equals_counting_by_hand(seed: int) -> None:
    x = F.normalize(torch.randn(9, 6, dtype=torch.float64), dim=1)
    made = F.normalize(torch.randn(4, 8, 6, dtype=torch.float64), dim=2)
    found = vote(x, made, 10)
    for image, scores in zip(x, found):
        ranked = sorted(((float(image @ made[c, i]), c) for c in range(4) for i in range(8)), reverse=True)
        votes = [sum(c == own for _, c in ranked[:10]) for own in range(4)]
        mean = [sum(v for v, c in ranked if c == own) / 8 for own in range(4)]
        best = max(range(4), key=lambda c: (votes[c], mean[c]))
        assert int(scores.argmax()) == best
        assert (scores * 10).floor().long().tolist() == votes


def test_fewer_synthetic_features_than_neighbours_all_vote(seed: int) -> None:
    made = F.normalize(torch.randn(2, 3, 6), dim=2)
    found = vote(F.normalize(torch.randn(4, 6), dim=1), made, 50)
    assert ((found * 6).floor() == 3).all()
