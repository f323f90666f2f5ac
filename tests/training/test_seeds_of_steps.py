"""Every training step sets the generators anew."""

from __future__ import annotations

import pytest
import torch

from fastzsl.methods.engines.loop import _reseed


def test_a_step_draws_as_after_manual_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = torch.rand(4)
        _reseed(5, torch.device("cpu"))
        assert torch.equal(torch.rand(4), wanted)


@pytest.mark.skipif(not hasattr(torch.cuda, "_queued_calls"), reason="this PyTorch keeps no such list")
def test_steps_leave_nothing_behind_for_devices_that_are_not_used() -> None:
    before = len(torch.cuda._queued_calls)
    with torch.random.fork_rng():
        for step in range(10):
            _reseed(step, torch.device("cpu"))
    assert len(torch.cuda._queued_calls) == before
