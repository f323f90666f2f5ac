"""Cosines where the decoded regions of an image nearly cancel, as in tests/ops/test_cancellation.py.

With the gradients taken through a Gram matrix the errors were up to 2,000 times plain PyTorch's here.
"""

from __future__ import annotations

import pytest
from cancelling import RHOS, allowed_ratio, worst_ratio
from torch import Tensor

from fastzsl.ops.autograd import AttendedScores


@pytest.mark.parametrize("order", ["attend", "project"])
@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("shape", [(2, 12, 24, 96, 40), (1, 150, 24, 256, 32)])
def test_scores_and_gradients(shape: tuple[int, ...], rho: float, order: str, seed: int) -> None:
    def scores(*tensors: Tensor) -> Tensor:
        return AttendedScores.apply(*tensors, "cosine", 1.0, order, "triton")

    ratio, name = worst_ratio(scores, rho, *shape, draws=3)
    print(f"{name}: {ratio:.2f} times plain PyTorch's error")
    assert ratio <= allowed_ratio(order, rho), name


def test_images_are_decoded_a_few_at_a_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastzsl.kernels import gradients

    monkeypatch.setattr(gradients, "_MOST_DECODED", 2 * 24 * 40)  # two of five images

    def scores(*tensors: Tensor) -> Tensor:
        return AttendedScores.apply(*tensors, "cosine", 1.0, "project", "triton")

    ratio, name = worst_ratio(scores, 1.0, 5, 12, 24, 96, 40, draws=3)
    assert ratio <= 2, name
