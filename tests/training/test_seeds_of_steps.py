"""Every training step sets the generators anew."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastzsl.methods.engines.loop import _reseed


def test_a_step_draws_as_after_manual_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = torch.rand(4)
        _reseed(5, torch.device("cpu"))
        assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize("name", ["manual_seed", "manual_seed_all"])
def test_the_device_of_the_training_is_seeded_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All devices of its kind, where PyTorch has a function for them; for MPS it has none."""
    seeds: list[int] = []
    module = SimpleNamespace(manual_seed=lambda seed: None)
    setattr(module, name, seeds.append)
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    _reseed(7, torch.device("mps"))
    torch.set_rng_state(before)
    assert seeds == [7]


@pytest.mark.skipif(not hasattr(torch.cuda, "_queued_calls"), reason="this PyTorch keeps no such list")
def test_steps_leave_nothing_behind_for_devices_that_are_not_used() -> None:
    before = len(torch.cuda._queued_calls)
    with torch.random.fork_rng():
        for step in range(10):
            _reseed(step, torch.device("cpu"))
    assert len(torch.cuda._queued_calls) == before
