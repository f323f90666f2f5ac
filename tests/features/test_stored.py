"""Features of a batch that are copied only when they are prepared."""

from __future__ import annotations

import pytest
import torch

from fastzsl.data.held_out import OnlyRegions
from fastzsl.features.sources import MemoryRegions, stored_regions
from fastzsl.features.stored import Stored
from fastzsl.ops import prepare_regions


class Read:
    """A source that holds nothing in memory."""

    feature_shape = (8, 2, 3)

    def __init__(self, memory: MemoryRegions) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory)

    def regions(self, indices: torch.Tensor) -> torch.Tensor:
        return self._memory.regions(indices)


def test_a_batch_in_memory_is_what_a_copy_gives(seed: int) -> None:
    memory = MemoryRegions(torch.randn(20, 8, 2, 3).half())
    images, kept = torch.tensor([7, 0, 19]), torch.tensor([[0, 5], [3, 1], [2, 2]])
    here, read = stored_regions(memory, images), stored_regions(Read(memory), images)
    assert here.shape == read.shape == (3, 6, 8)
    assert torch.equal(here.copied(), read.copied())
    settings = {"kept": kept, "power": 0.5, "factor": 2.0}
    wanted = prepare_regions(memory.regions(images), **settings)
    assert torch.equal(here.prepare(**settings), wanted)
    assert torch.equal(read.prepare(**settings), wanted)


def test_moving_to_the_same_device_copies_nothing() -> None:
    features = torch.zeros(5, 2, 3)
    batch = Stored(features, torch.tensor([1, 4]))
    assert batch.to("cpu") is batch
    assert batch.to(torch.device("meta")).shape == (2, 2, 3)
    assert batch.to(torch.device("meta")).device.type == "meta"


def test_images_that_are_not_allowed_stay_closed_in_memory_too() -> None:
    allowed = OnlyRegions(MemoryRegions(torch.zeros(4, 8, 1, 1)), torch.tensor([0, 2]))
    assert allowed.stored(torch.tensor([2, 0])).shape == (2, 1, 8)
    with pytest.raises(PermissionError):
        allowed.stored(torch.tensor([1]))
