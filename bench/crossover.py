"""The sizes at which eager is as fast: the ratio eager / native for batch sizes and numbers of classes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fastzsl.ops import attended_scores, dense_attention

BATCHES = (1, 2, 4, 8, 32)
CLASSES = (1, 10, 50, 200)
FEATURES = (64, 512, 2048)


def _ratio(eager: Callable[[], Tensor], native: Callable[[], Tensor]) -> float:
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    rounds = 0
    while rounds < 7 or (time.perf_counter() - begin < 0.15 and rounds < 200):
        for run, kept in zip((eager, native), times):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
        rounds += 1
    return statistics.median(times[0]) / statistics.median(times[1])


def crossover(T: int = 49, m: int = 85) -> list[dict[str, float | str]]:
    """Rows of (op, d, B, C, time of eager / time of native), forward: scores by dot and by cosine, and attention."""
    rows: list[dict[str, float | str]] = []
    with torch.no_grad():
        for d in FEATURES:
            for B in BATCHES:
                for C in CLASSES:
                    X, H, W, b, K = (torch.randn(*s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m)))

                    def dot(backend: str) -> Tensor:
                        return attended_scores(X, H, W, b, K, similarity="dot", backend=backend)  # noqa: B023

                    def cosine(backend: str) -> Tensor:
                        return attended_scores(X, H, W, b, K, similarity="cosine", backend=backend)  # noqa: B023

                    def attended(backend: str) -> Tensor:
                        return dense_attention(X, H, backend=backend)  # noqa: B023

                    for op, function in (
                        ("attended_scores, dot", dot),
                        ("attended_scores, cosine", cosine),
                        ("dense_attention", attended),
                    ):
                        ratio = _ratio(lambda: function("eager"), lambda: function("native"))  # noqa: B023
                        rows.append({"op": op, "d": d, "B": B, "C": C, "ratio": ratio})
                        print(f"{op:24} d={d:5} B={B:3} C={C:4}  eager / native {ratio:5.2f}")
    return rows
