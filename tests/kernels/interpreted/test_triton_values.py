"""Forward and every gradient of every kernel against float64, at small and real shapes, in the
interpreter."""

from __future__ import annotations

import random

import pytest
import torch
from fastzsl.kernels import gradients, launch
from triton_checks import Case, failures

half, brain = torch.float16, torch.bfloat16
CASES = [
    Case(3, 1, 1, 64, 5),
    Case(5, 7, 10, 320, 33, half),
    Case(9, 7, 50, 64, 12, layout="bdt"),
    Case(2, 49, 200, 2048, 40, half, layout="bdt"),
    Case(7, 49, 10, 320, 85, layout="gap"),
    Case(1, 49, 717, 64, 102),
    Case(2, 50, 50, 1280, 40, brain),
    Case(1, 128, 65, 96, 16, half),
    Case(2, 129, 65, 96, 16, layout="gap"),
    Case(1, 196, 200, 320, 64, layout="bdt"),
    Case(1, 576, 10, 1280, 20, half),
    Case(2, 576, 50, 64, 17, brain),
    Case(2, 49, 30, 64, 7, scale=0.0),
    Case(2, 49, 30, 64, 7, scale=-2.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_as_close_to_float64_as_eager(case: Case) -> None:
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    assert failures(launch, gradients, case, seed) == []


def test_long_projected_regions_do_not_overflow_float16() -> None:
    # |v|^2 is near 10^5 here: a Gram matrix in float16 would be infinite, and 1/|e|^2 would vanish.
    assert failures(launch, gradients, Case(2, 49, 20, 64, 64, half, size=30.0), 0, "cosine") == []


def test_sharp_attention_does_not_overflow() -> None:
    # Logits of several hundred: exp without the maximum taken off would be infinite in float32.
    assert failures(launch, gradients, Case(2, 49, 20, 64, 8, scale=60.0), 0, "attention") == []
    assert failures(launch, gradients, Case(2, 196, 20, 64, 8, scale=60.0), 0, "attention") == []


@pytest.mark.parametrize(
    ("images", "apart"), [(11, 2**28 - 64), (3, 2**30 + 64)], ids=["far offsets", "strides too wide to pack"]
)
def test_images_beyond_two_to_the_31_elements_are_reached(images: int, apart: int) -> None:
    # Virtual memory only: small images that lie far apart.
    memory = torch.empty((images - 1) * apart + 49 * 32, dtype=torch.float16)
    regions = torch.as_strided(memory, (images, 49, 32), (apart, 32, 1))
    regions.copy_(torch.randn(images, 49, 32))
    assert (images - 1) * apart > 2**31
    queries, offsets = torch.randn(7, 32).half(), torch.zeros(7).half()
    close = regions.contiguous()
    for far, near in zip(
        launch.prototype_scores(regions, queries, queries, offsets, 1.0, True),
        launch.prototype_scores(close, queries, queries, offsets, 1.0, True),
    ):
        assert torch.equal(far, near)
    far = launch.attend(regions, queries, regions, None, 1.0, "attend", False)[0]
    assert torch.equal(far, launch.attend(close, queries, close, None, 1.0, "attend", False)[0])
