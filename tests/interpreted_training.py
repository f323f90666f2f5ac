"""A short training on the small problem with the backend named on the command line; prints losses and T1 as JSON.

A program of its own because Triton decides at import whether its kernels are interpreted (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "protocol"))
from small_problem import SETTINGS, small_problem

from fastzsl.methods.context import Context
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.scoring import test_scores as score_tests
from fastzsl.training.fit import fit_model


def main(backend: str, epochs: int) -> None:
    data = small_problem()
    method = SETTINGS.changed(backend=backend, epochs=epochs).method
    losses: list[float] = []
    context = Context(listener=lambda step, total, figures: losses.append(figures["loss"]))
    model = fit_model(method, data, context)
    T1 = evaluate(score_tests(model, data), 0.0).T1
    weights = {name: float(value.detach().double().abs().sum()) for name, value in model.named_parameters()}
    print(json.dumps({"losses": losses, "T1": T1, "weights": weights}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
