"""The parts of a batch that a step leaves out: as many as asked for, each by itself, the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from fastzsl.methods.attended.dropout import random_channels, random_regions

CPU = torch.device("cpu")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.6, 0.95])
def test_channels_are_kept_with_their_probability_each_by_itself(seed: int, share: float) -> None:
    images, channels = 4000, 51
    kept = random_channels(images, channels, share, CPU)
    assert kept.shape == (images, channels)
    assert kept.dtype == torch.bool
    values = kept.double() - share
    deviation = (share * (1 - share)) ** 0.5
    six = 6 * deviation / images**0.5
    assert values.mean(0).abs().max() < six, "every channel alike"
    assert values.mean().abs() < six / channels**0.5 + 1 / 65536
    together = values.mT @ values / images / deviation**2
    apart = together - torch.diag(together.diagonal())
    assert apart.abs().max() < 8 / images**0.5, "no two go together"
    neighbours = (values[1:] * values[:-1]).mean() / deviation**2
    assert neighbours.abs() < 6 / (images * channels) ** 0.5, "nor two images"


def test_the_same_seed_gives_the_same_parts() -> None:
    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(7)
        return random_channels(5, 7, 0.5, CPU), random_regions(5, 7, 3, CPU)

    first, second = draw(), draw()
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert not torch.equal(first[0][0], first[0][1])


@pytest.mark.parametrize("share", [1.0, 1 - 1e-9])
def test_almost_all_are_kept(share: float) -> None:
    """The largest number of 16 bits is 32767: a bound of 32768 would keep none."""
    assert random_channels(100, 9, share, CPU).all()


def test_almost_none_are_kept() -> None:
    assert random_channels(100, 9, 1e-9, CPU).float().mean() < 0.01


def test_regions_are_different_and_equally_likely(seed: int) -> None:
    kept = random_regions(6000, 7, 3, CPU)
    assert kept.shape == (6000, 3)
    assert (kept.sort(1).values.diff(dim=1) > 0).all()
    counts = torch.bincount(kept.flatten(), minlength=7).double() / 6000
    assert (counts - 3 / 7).abs().max() < 6 * (3 / 7 * 4 / 7 / 6000) ** 0.5
