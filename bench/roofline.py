"""Limits from the hardware's specification: operations, bytes and the shortest time of both ops in each order.

    python -m bench.roofline [--bandwidth TB/s] [--matmul TFLOP/s] [--batch 256] [--dtype bfloat16]

A step takes at least max(operations / matmul peak, bytes / bandwidth), if its inputs are read and its outputs written
once. Each fused op is one step (plus the small products that prepare it). Eager PyTorch is a list of steps, one for
each launch. The ratio of the sums is the speed-up of a perfect kernel: a bound, not a measurement.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class Card(NamedTuple):
    """A GPU's limits: bytes/s, dense 16-bit operations/s, and the source of the two numbers."""

    name: str
    bandwidth: float
    matmul: float
    source: str

    def rate(self, dtype: str) -> float:
        """Matrix operations per second; float32 is taken as TF32, half the 16-bit rate."""
        return self.matmul if BYTES[dtype] == 2 else self.matmul / 2


CARDS = (
    Card("A100", 2.04e12, 312e12, "data sheet"),
    Card("H100", 3.0e12, 790e12, "a copy and a bf16 matmul measured elsewhere"),
    Card("H200", 4.8e12, 989e12, "data sheet"),
)


class Shape(NamedTuple):
    """A workload in the letters of the ops."""

    name: str
    B: int
    T: int
    C: int
    d: int
    m: int


SHAPES = (
    Shape("CUB, all classes", 256, 49, 200, 2048, 312),
    Shape("SUN, all classes", 256, 49, 717, 2048, 102),
    Shape("AWA2, all classes", 256, 49, 50, 2048, 85),
    Shape("CUB on a ViT", 256, 196, 200, 768, 312),
)


class Step(NamedTuple):
    """One pass over memory: multiply-adds, and numbers read and written."""

    name: str
    multiply_adds: int
    numbers: int

    def seconds(self, card: Card, dtype: str) -> float:
        return max(2 * self.multiply_adds / card.rate(dtype), self.numbers * BYTES[dtype] / card.bandwidth)


def ours_attention(s: Shape) -> list[Step]:
    """dense_attention: reads X and H, writes X~; logits and attention stay on the chip."""
    B, T, C, d = s[1:5]
    return [Step("attend", B * 2 * T * C * d, B * T * d + C * d + B * C * d)]


def eager_attention(s: Shape) -> list[Step]:
    """logits = H X^T, scale, softmax, X~ = A X: four launches."""
    B, T, C, d = s[1:5]
    X, H, A = B * T * d, C * d, B * C * T
    return [
        Step("logits", B * T * C * d, X + H + A),
        Step("scale", 0, 2 * A),
        Step("softmax", 0, 2 * A),
        Step("pool", B * T * C * d, A + X + B * C * d),
    ]


def ours_scores(s: Shape, order: str) -> list[Step]:
    """attended_scores in one of the planner's orders; its fused kernel writes only B x C numbers."""
    B, T, C, d, m = s[1:]
    X, H, W, K, S = B * T * d, C * d, m * d, C * m, B * C
    if order == "prototype":
        return [
            Step("P = K W", C * m * d, K + W + C * d),
            Step("prototype scores", B * 2 * T * C * d, X + 2 * H + S),
        ]
    if order == "project":
        return [
            Step("V = X W^T", B * T * m * d, X + W + B * T * m),
            Step("projected scores", B * (T * C * d + T * C * m), X + H + B * T * m + K + S),
        ]
    return [
        *ours_attention(s),
        Step("decode", B * C * d * m, B * C * d + W + B * C * m),
        Step("similarity", 0, B * C * m + K + S),
    ]


def eager_scores(s: Shape, similarity: str) -> list[Step]:
    """The equation as written: attend, decode, normalise, multiply, sum."""
    B, _, C, d, m = s[1:]
    e, K = B * C * m, C * m
    steps = [*eager_attention(s), Step("decode", B * C * d * m, B * C * d + m * d + e)]
    if similarity == "cosine":
        steps += [Step("norm", 0, e + B * C), Step("divide", 0, 2 * e), Step("normalise K", 0, 3 * K)]
    return [*steps, Step("multiply", 0, 2 * e + K), Step("sum", 0, e + B * C)]


def seconds(steps: Iterable[Step], card: Card, dtype: str) -> float:
    """The shortest time of a list of steps, one after the other."""
    return sum(step.seconds(card, dtype) for step in steps)


def candidates(s: Shape) -> dict[str, tuple[list[Step], list[Step]]]:
    """Each op, similarity and order: (steps of the fused op, steps of eager)."""
    return {
        "dense_attention": (ours_attention(s), eager_attention(s)),
        "scores dot, prototype": (ours_scores(s, "prototype"), eager_scores(s, "dot")),
        "scores dot, project": (ours_scores(s, "project"), eager_scores(s, "dot")),
        "scores cosine, project": (ours_scores(s, "project"), eager_scores(s, "cosine")),
        "scores cosine, attend": (ours_scores(s, "attend"), eager_scores(s, "cosine")),
    }


def table(shapes: Iterable[Shape], cards: Iterable[Card], dtype: str) -> str:
    """The whole page as text."""
    lines = []
    for card in cards:
        bandwidth, rate = card.bandwidth / 1e12, card.rate(dtype) / 1e12
        lines.append(f"{card.name}: {bandwidth:.2f} TB/s, {rate:.0f} TFLOP/s {dtype} ({card.source})")
        for shape in shapes:
            lines.append(f"  {shape.name}: B={shape.B} T={shape.T} C={shape.C} d={shape.d} m={shape.m}")
            lines.append(
                f"    {'':24}{'GFLOP':>9}{'MB':>8}{'at least':>11}{'bound by':>10}{'eager / ours':>14}"
            )
            for name, (ours, eager) in candidates(shape).items():
                ideal = seconds(ours, card, dtype)
                operations = 2 * sum(step.multiply_adds for step in ours)
                size = BYTES[dtype] * sum(step.numbers for step in ours)
                largest = max(ours, key=lambda step: step.seconds(card, dtype))
                counting = 2 * largest.multiply_adds / card.rate(dtype) >= largest.seconds(card, dtype)
                lines.append(
                    f"    {name:24}{operations / 1e9:9.1f}{size / 1e6:8.0f}{ideal * 1e6:8.0f} us"
                    f"{'matmul' if counting else 'memory':>10}{seconds(eager, card, dtype) / ideal:13.1f}x"
                )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bandwidth", type=float, help="TB/s of a copy on your card")
    parser.add_argument("--matmul", type=float, help="TFLOP/s of a 16-bit matrix product on your card")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", choices=sorted(BYTES), default="bfloat16")
    options = parser.parse_args(arguments)
    cards: tuple[Card, ...] = CARDS
    if options.bandwidth or options.matmul:
        if not (options.bandwidth and options.matmul):
            parser.error("--bandwidth and --matmul describe one card: give both")
        cards = (Card("your card", options.bandwidth * 1e12, options.matmul * 1e12, "arguments"),)
    print(table([shape._replace(B=options.batch) for shape in SHAPES], cards, options.dtype))


if __name__ == "__main__":
    main()
