"""The sizes at which eager is as fast: eager's time over native's and over auto's, forward and with gradients.

    python -m bench.crossover [--shared] [--gradients none parameters all] [--quick]

prints the table and names the cells in which `auto` is slower than eager; `python -m bench crossover` also keeps it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.measure import Clock
from fastzsl.ops import attended_scores, dense_attention

BATCHES = (1, 2, 4, 8, 32)
CLASSES = (1, 10, 50, 200)
FEATURES = (64, 512, 2048)
QUICK = ((1, 8, 64), (1, 10, 50), (64, 512))
GRADIENTS = ("none", "parameters", "all")
"""Which tensors need a gradient: none, all but the regions (frozen features), all."""
OPS = ("attended_scores, dot", "attended_scores, cosine", "dense_attention")
NOISE = 0.95
"""Below this ratio a cell counts as slower."""


def _times(runs: dict[str, Callable[[], None]], clock: Clock, seconds: float) -> dict[str, float]:
    shuffled, begin = random.Random(0), time.perf_counter()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    while len(times["eager"]) < 9 or (time.perf_counter() - begin < seconds and len(times["eager"]) < 300):
        for name in shuffled.sample(list(runs), len(runs)):
            start = clock()
            runs[name]()
            times[name].append(clock() - start)
    return {name: statistics.median(kept) for name, kept in times.items()}


def _runs(op: str, tensors: list[Tensor], upstream: Tensor) -> dict[str, Callable[[], None]]:
    leaves = [t for t in tensors if t.requires_grad]

    def run(backend: str) -> None:
        if op == "dense_attention":
            result = dense_attention(tensors[0], tensors[1], backend=backend)
        else:
            result = attended_scores(*tensors, similarity=op.split(", ")[1], backend=backend)  # type: ignore[arg-type]
        if leaves:
            torch.autograd.grad(result, leaves, upstream)

    return {name: lambda name=name: run(name) for name in ("eager", "native", "auto")}  # type: ignore[misc]


def cells(quick: bool) -> Iterator[tuple[int, int, int]]:
    """(d, B, C) of the table's rows."""
    batches, classes, features = QUICK if quick else (BATCHES, CLASSES, FEATURES)
    for d in features:
        for B in batches:
            for C in classes:
                yield d, B, C


def crossover(
    T: int = 49,
    m: int = 85,
    gradients: tuple[str, ...] = GRADIENTS,
    clock: Clock = time.perf_counter,
    seconds: float = 0.25,
    quick: bool = False,
) -> list[dict[str, Any]]:
    """Rows of (op, gradients, d, B, C, T, m, ratio: eager's time over native's, auto: eager's over auto's)."""
    rows: list[dict[str, Any]] = []
    for which in gradients:
        for d, B, C in cells(quick):
            shapes = ((B, T, d), (C, d), (m, d), (m,), (C, m))
            inputs = [torch.randn(*shape) for shape in shapes]
            inputs[1] /= d**0.5
            for op in OPS:
                tensors = [t.clone() for t in inputs[: 2 if op == "dense_attention" else 5]]
                for i, t in enumerate(tensors):
                    t.requires_grad_(which == "all" or (which == "parameters" and i > 0))
                upstream = torch.randn((B, C, d) if op == "dense_attention" else (B, C))
                times = _times(_runs(op, tensors, upstream), clock, seconds)
                ratio, auto = times["eager"] / times["native"], times["eager"] / times["auto"]
                rows.append({
                    "op": op, "gradients": which, "d": d, "B": B, "C": C, "T": T, "m": m, "ratio": ratio, "auto": auto,
                })  # fmt: skip
                where = f"{op:24} gradients {which:10} d={d:5} B={B:3} C={C:4}"
                print(f"{where}  eager / native {ratio:5.2f}  eager / auto {auto:5.2f}", flush=True)
    return rows


def slower_cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in which `auto` takes longer than eager by more than the noise."""
    return [row for row in rows if row.get("auto", 1.0) < NOISE]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.crossover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gradients", nargs="+", choices=GRADIENTS, default=list(GRADIENTS))
    parser.add_argument("--regions", type=int, default=49, help="T")
    parser.add_argument("--embedding", type=int, default=85, help="m")
    parser.add_argument("--seconds", type=float, default=0.25, help="time for each cell")
    parser.add_argument("--quick", action="store_true", help="a tenth of the cells")
    parser.add_argument(
        "--shared", action="store_true", help="one thread and its processor time, on a busy machine"
    )
    options = parser.parse_args()
    if options.shared:
        torch.set_num_threads(1)
    rows = crossover(
        options.regions, options.embedding, tuple(options.gradients),
        time.thread_time if options.shared else time.perf_counter, options.seconds, options.quick,
    )  # fmt: skip
    slow = slower_cells(rows)
    print(f"auto is slower than eager by more than {1 - NOISE:.0%} in {len(slow)} of {len(rows)} cells")
    for row in sorted(slow, key=lambda row: row["auto"]):
        print(
            "  "
            + ", ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
