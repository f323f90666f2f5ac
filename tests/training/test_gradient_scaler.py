"""A training in float16 with scaled losses (`16-mixed`) continues with the scale that it had.

Fabric takes bfloat16 in its place on the CPU unless it gets the plugin itself, so the test gives it the plugin; on a
GPU `--precision 16-mixed` makes the same one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.dcn import DCN
from fastzsl.methods.engines.checkpoint import load_state
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import planted

METHOD = DCN(epochs=2, batch_size=64, hidden=8)


class Killed(Exception):
    pass


def train(path: Path, kill_after: int | None = None) -> tuple[dict[str, Tensor], float]:
    """Weights and the scale at the end. The scale doubles every third step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=3)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    problem = Problem(planted(3), "all")
    model = new_model(METHOD, problem.feature_dim, problem.embedding_dim, 0)

    def listener(step: int, total: int, figures: object) -> None:
        if step == kill_after:
            raise Killed

    METHOD.fit(model, problem, Context(fabric, checkpoint=path, checkpoint_steps=1, listener=listener))
    return model.state_dict(), scaler.get_scale()


def test_the_scale_of_the_losses_is_saved_and_restored(tmp_path: Path) -> None:
    whole, scale = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill_after=9)
    assert load_state(tmp_path / "killed")["parts"]["precision"]["scale"] == 8.0
    continued, scale_again = train(tmp_path / "killed")
    assert scale_again == scale > 8.0
    for name, tensor in whole.items():
        assert torch.equal(continued[name], tensor), name
