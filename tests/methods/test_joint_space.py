"""Nearest class in a joint space."""

from __future__ import annotations

import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.methods.joint_space import JointSpace
from fastzsl.methods.method import ClassSet


def test_scores_are_cosines_whatever_the_lengths(seed: int) -> None:
    model = JointSpace().build(6, 6)
    x, k = torch.randn(5, 6), torch.randn(4, 6)
    found = model.classifier(ClassSet(k, torch.full((4,), -1)))(7 * x)
    expected = torch.nn.functional.cosine_similarity(x[:, None], k, dim=2)
    torch.testing.assert_close(found, expected)


def test_spaces_of_two_sizes_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="d=6 but class embeddings m=5; wanted"):
        JointSpace().build(6, 5)
