"""The training step: loss, backward pass and AdamW from stored float16 features, as the command does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.measure import Clock, interleaved
from bench.naive import CompiledAutoencoder, CompiledNaiveAutoencoder, NaiveAutoencoder
from fastzsl.methods.attended.autoencoder import AttendedAutoencoder

BATCH = 64


class Step(NamedTuple):
    """Shapes of one training: d features, m numbers of a class embedding, classes seen and in all, T regions stored."""

    name: str
    d: int
    m: int
    seen: int
    classes: int
    T: int = 49
    similarity: str = "cosine"


STEPS = (
    Step("training step, shapes", 1280, 20, 24, 30),
    Step("training step, CUB-seen, cosine", 2048, 312, 150, 200),
    Step("training step, CUB-seen, dot", 2048, 312, 150, 200, similarity="dot"),
    Step("training step, FLO", 1280, 1024, 71, 102),
    Step("training step, FLO, T=196", 1280, 1024, 71, 102, 196),
)


def contestants(step: Step, compiled: bool) -> dict[str, Callable[[], list[Tensor]]]:
    """Each does one step of its own model and returns the loss; all models begin with the same weights.

    The last one runs as `--precision bf16-mixed`.

    Raises:
        AssertionError: with the same random numbers a model's first loss differs from the native one's.
    """
    plain: dict[str, tuple[type[AttendedAutoencoder], str]] = {
        "native": (AttendedAutoencoder, "native"),
        "auto": (AttendedAutoencoder, "auto"),
        "eager": (AttendedAutoencoder, "eager"),
        "naive": (NaiveAutoencoder, "eager"),
    }
    if compiled:
        plain |= {
            "eager, compiled": (CompiledAutoencoder, "eager"),
            "naive, compiled": (CompiledNaiveAutoencoder, "eager"),
        }
    runs = {name: _run(step, model, backend) for name, (model, backend) in plain.items()}
    runs["native, bf16-mixed"] = _run(step, AttendedAutoencoder, "native", "bf16-mixed")
    first = {}
    for name, run in runs.items():
        torch.manual_seed(1)
        first[name] = float(run()[0])
        drawn_alike = "compiled" not in name  # Inductor draws its own random numbers
        difference = abs(first[name] - first["native"]) / first["native"]
        assert difference < (3e-2 if "bf16" in name else 1e-3) or not drawn_alike, (
            f"{name}: a loss of {first[name]}, native's is {first['native']}"
        )
        assert first[name] < 2 * first["native"], f"{name}: a loss of {first[name]}"
    return runs


def _run(
    step: Step, kind: type[AttendedAutoencoder], backend: str, precision: str = "32-true"
) -> Callable[[], list[Tensor]]:
    torch.manual_seed(0)
    stored = torch.randn(BATCH, step.T, step.d).relu().half()
    embeddings, seen = torch.rand(step.classes, step.m), torch.arange(step.seen)
    labels = torch.randint(step.seen, (BATCH,))
    model = kind(step.d, step.m, similarity=step.similarity, backend=backend)  # type: ignore[arg-type]
    model.fit_scaling(stored, embeddings[: step.seen])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0, fused=True)

    def run() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            terms = model.loss(stored, labels, embeddings, seen)
        values = torch.stack([value.detach().double() for value in terms.values()]).tolist()
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return [torch.tensor(values[0])]

    return run


def measure(step: Step, clock: Clock, seconds: float, compiled: bool = True) -> dict[str, Any]:
    """Median seconds of each contestant."""
    torch.compiler.reset()
    times, peak = interleaved(contestants(step, compiled), torch.float32, clock, seconds, rounds=3000)
    for name, value in times.items():
        print(f"{step.name:40} {name:18} {1e3 * value:9.2f} ms  {value / times['native']:6.2f}x")
    return {"times": times, "peak": peak}
