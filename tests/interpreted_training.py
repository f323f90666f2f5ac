"""A short training on the small problem through a backend, and the rounding errors of its steps; prints JSON.

A program of its own because Triton decides at import whether its kernels are interpreted (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "protocol"))
from small_problem import SETTINGS, small_problem

from fastzsl.methods.attended.autoencoder import AttendedAutoencoder
from fastzsl.methods.context import Context
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.scoring import test_scores as score_tests
from fastzsl.training.fit import fit_model

EVERY = 5
_loss = AttendedAutoencoder.loss


class Steps:
    """Stands in for `AttendedAutoencoder.loss`. At the weights of every fifth step it computes loss and gradient in
    float64, and the relative errors of the backend and of plain PyTorch in float32."""

    def __init__(self, backend: str) -> None:
        self.taken = 0
        self.backends = {"ours": backend, "plain": "eager"}
        self.errors: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}

    def loss(self, model: AttendedAutoencoder, *inputs: object, **settings: object) -> dict[str, Tensor]:
        self.taken += 1
        if self.taken % EVERY:
            return _loss(model, *inputs, **settings)  # type: ignore[arg-type]
        loss, gradient = self._step(model, torch.float64, "eager", inputs, settings)
        for name, backend in self.backends.items():
            found = self._step(model, torch.float32, backend, inputs, settings)
            errors = [float((f - t).norm() / t.norm()) for f, t in zip(found, (loss, gradient))]
            self.errors[name].append((errors[0], errors[1]))
        return _loss(model, *inputs, **settings)  # type: ignore[arg-type]

    @staticmethod
    def _step(model, dtype, backend, inputs, settings) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        copied = copy.deepcopy(model).to(dtype)
        copied.dense_attention.backend = backend
        with torch.enable_grad():
            loss = _loss(copied, *inputs, **settings)["loss"]
            grads = torch.autograd.grad(loss, list(copied.parameters()))
        return loss.detach().double(), torch.cat([g.double().flatten() for g in grads])


def train(backend: str, epochs: int, seed: int) -> dict[str, object]:
    """Losses, T1, and the largest errors (loss, gradient) of all steps by the backend and by plain PyTorch."""
    data, steps = small_problem(), Steps(backend)
    losses: list[float] = []
    context = Context(seed=seed, listener=lambda step, total, figures: losses.append(figures["loss"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttendedAutoencoder, "loss", lambda model, *a, **k: steps.loss(model, *a, **k))
        model = fit_model(SETTINGS.changed(backend=backend, epochs=epochs).method, data, context)
    T1 = evaluate(score_tests(model, data), 0.0).T1
    largest = {name: torch.tensor(errors).amax(0).tolist() for name, errors in steps.errors.items()}
    return {"losses": losses, "T1": T1, **largest}


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
