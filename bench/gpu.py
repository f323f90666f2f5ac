"""Measure the Triton kernels on this machine's GPU: check the results, then compare time and memory with all rivals.

    python -m bench.gpu [--dtype bfloat16] [--batch 256] [--json gpu.json] [--search]
    TRITON_INTERPRET=1 python -m bench.gpu --rehearse    tiny shapes on a CPU: tests this program, no timing

If the error of an output or gradient against float64 is more than twice eager's error, it is reported as wrong and not
timed. All rivals run in one process, one after the other. `share` is the shortest possible time on this card divided
by the measured time. bench.roofline computes the shortest time from a copy and a matrix product measured here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import roofline
from fastzsl import ops
from fastzsl.ops import eager, reference

SMALL = (roofline.Shape("rehearsal", 3, 49, 20, 64, 12),)
Call = Callable[..., Tensor]


class Row(NamedTuple):
    """One line of the table; seconds and bytes are None if the result was wrong or the rival failed."""

    shape: str
    op: str
    rival: str
    passes: str
    seconds: float | None
    peak: int | None
    share: float | None
    error: float
    note: str = ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", choices=sorted(roofline.BYTES), default="bfloat16")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--search", action="store_true", help="also try a wide grid of tiles for each kernel")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny shapes on the CPU, to test this program"
    )
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print("bench.gpu: PyTorch sees no GPU; --rehearse runs the same code on a CPU", file=sys.stderr)
        return 2
    shapes = SMALL if options.rehearse else [s._replace(B=options.batch) for s in roofline.SHAPES]
    device = torch.device("cpu" if options.rehearse else "cuda")
    card = roofline.CARDS[1]._replace(name="rehearsal") if options.rehearse else measured_card()
    print(
        f"{card.name}: copy {card.bandwidth / 1e12:.2f} TB/s, matmul {card.matmul / 1e12:.0f} TFLOP/s, "
        f"torch {torch.__version__}, {options.dtype}"
    )
    rows = [row for shape in shapes for row in measure(shape, options.dtype, device, card)]
    print(table(rows))
    if options.rehearse:
        print("rehearsal: these times mean nothing")
    found = {
        "card": card._asdict(), "torch": torch.__version__, "dtype": options.dtype,
        "rehearsal": options.rehearse, "rows": [row._asdict() for row in rows],
    }  # fmt: skip
    if options.search:
        found["search"] = [best for shape in shapes for best in search(shape, options.dtype, device)]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(row.rival == "ours" and row.seconds is None for row in rows) else 0


def measured_card() -> roofline.Card:
    """The measured limits of this card: the bandwidth of a copy of 1 GiB and the rate of an 8192^3 bf16 product."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    bandwidth = 2 * source.numel() / _seconds(lambda: target.copy_(source), source.device)
    matmul = 2 * 8192**3 / _seconds(lambda: square @ square, source.device)
    return roofline.Card(torch.cuda.get_device_name(), bandwidth, matmul, "measured here")


def measure(shape: roofline.Shape, dtype: str, device: torch.device, card: roofline.Card) -> Iterator[Row]:
    """Rows for both ops, forward alone and with backward, every rival."""
    inputs = make_inputs(shape, getattr(torch, dtype), device)
    for op, (ideal, plain, rivals, used) in cases(shape, dtype, card).items():
        tensors = inputs[:used]
        few = [t[:8] if i == 0 else t for i, t in enumerate(tensors)]  # float64 on eight images is enough
        for backward in (False, True):
            true = _results(plain, few, backward, torch.float64)
            own = zip(_results(plain, few, backward), true)
            floor = (4 if dtype == "float32" else 2) * torch.finfo(few[0].dtype).eps
            bounds = [max(2 * _error(a, b), floor) for a, b in own]
            for rival, call in rivals.items():
                row = Row(shape.name, op, rival, "both" if backward else "forward", None, None, None, 0.0)
                try:
                    errors = [_error(a, b) for a, b in zip(_results(call, few, backward), true)]
                    row = row._replace(error=max(errors))
                    if all(error <= bound for error, bound in zip(errors, bounds)):
                        seconds, peak = _time(call, tensors, backward, device)
                        share = None if backward else ideal / seconds
                        row = row._replace(seconds=seconds, peak=peak, share=share)
                    else:
                        row = row._replace(note=f"wrong: off by {max(errors):.1e}, bound {max(bounds):.1e}")
                except (RuntimeError, NotImplementedError) as failure:
                    row = row._replace(note=str(failure).splitlines()[0][:80])
                yield row


def make_inputs(shape: roofline.Shape, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """[regions, queries, decoder weight, bias, class embeddings] from a fixed seed."""
    g = torch.Generator().manual_seed(0)
    _, B, T, C, d, m = shape
    sizes = [((B, T, d), 1.0), ((C, d), d**-0.5), ((m, d), d**-0.5), ((m,), 1.0), ((C, m), 1.0)]
    return [
        torch.randn(size, generator=g).mul_(spread).to(device, dtype).requires_grad_()
        for size, spread in sizes
    ]


def cases(
    shape: roofline.Shape, dtype: str, card: roofline.Card
) -> dict[str, tuple[float, Call, dict[str, Call], int]]:
    """op -> (the roofline's seconds, the equation as written, rivals, number of inputs)."""
    paper = roofline.candidates(shape)

    def ideal(*names: str) -> float:
        return min(roofline.seconds(paper[name][0], card, dtype) for name in names)

    found: dict[str, tuple[float, Call, dict[str, Call], int]] = {
        "dense_attention": (
            ideal("dense_attention"),
            reference.dense_attention,
            {
                "ours": lambda x, h: ops.dense_attention(x, h, backend="triton"),
                "eager": reference.dense_attention,
                "compile": torch.compile(reference.dense_attention, dynamic=False),
                "matmul + bmm": _matmul_bmm,
                "SDPA": lambda x, h: F.scaled_dot_product_attention(
                    h.expand(x.shape[0], *h.shape), x, x, scale=1.0
                ),
            },
            2,
        )
    }
    for similarity, names in (
        ("dot", ("scores dot, prototype", "scores dot, project")),
        ("cosine", ("scores cosine, project", "scores cosine, attend")),
    ):

        def ours(*tensors: Tensor, similarity: str = similarity) -> Tensor:
            return ops.attended_scores(*tensors, similarity=similarity, backend="triton")

        def plain(*tensors: Tensor, similarity: str = similarity) -> Tensor:
            return reference.attended_scores(*tensors, similarity=similarity)

        def ordered(*tensors: Tensor, similarity: str = similarity) -> Tensor:
            return eager.attended_scores(*tensors, similarity=similarity)

        rivals: dict[str, Call] = {
            "ours": ours, "eager": plain, "compile": torch.compile(plain, dynamic=False),
            "best order": ordered, "best order, compile": torch.compile(ordered, dynamic=False),
        }  # fmt: skip
        found[f"scores, {similarity}"] = (ideal(*names), plain, rivals, 5)
    return found


def _matmul_bmm(regions: Tensor, queries: Tensor) -> Tensor:
    """By hand: one flat product for the logits, softmax, one batched product."""
    B, T, d = regions.shape
    logits = (regions.reshape(B * T, d) @ queries.t()).view(B, T, -1)
    return torch.bmm(logits.softmax(1).transpose(1, 2), regions)


def _results(
    call: Call, tensors: list[Tensor], backward: bool, dtype: torch.dtype | None = None
) -> list[Tensor]:
    """The output alone, or the gradients of its sum weighted by a fixed pattern."""
    leaves = [t.detach().to(dtype or t.dtype).requires_grad_() for t in tensors]
    out = call(*leaves)
    if not backward:
        return [out.detach()]
    pattern = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out)
    return list(torch.autograd.grad(out, leaves, pattern.to(out.dtype)))


def _error(found: Tensor, true: Tensor) -> float:
    return ((found.double() - true).norm() / true.norm()).item()


def _time(call: Call, tensors: list[Tensor], backward: bool, device: torch.device) -> tuple[float, int]:
    """(median seconds, peak bytes above the inputs); without backward, nothing is saved for it."""
    with torch.no_grad():
        grad = torch.ones_like(call(*tensors))

    def both() -> Any:
        return torch.autograd.grad(call(*tensors), tensors, grad)

    def forward() -> Any:
        with torch.no_grad():
            return call(*tensors)

    run = both if backward else forward
    run()
    if device.type == "cpu":
        return _seconds(run, device), 0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return _seconds(run, device), torch.cuda.max_memory_allocated() - before


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    from triton.testing import do_bench

    return do_bench(run, return_mode="median") / 1e3


def search(shape: roofline.Shape, dtype: str, device: torch.device) -> Iterator[dict[str, Any]]:
    """Time many tile sizes for each forward kernel; the fastest belong into kernels/configs.py."""
    from fastzsl.kernels import configs, launch

    target = launch.target_of(device)
    regions, queries, weight, bias, embeddings = make_inputs(shape, getattr(torch, dtype), device)
    values = F.linear(regions, weight, bias).detach()
    small = configs.one_tile(shape.T)
    rehearsal = device.type == "cpu"
    runs: dict[str, Callable[[], Any]] = {
        "prototype_packed" if small else "prototype_tiled": lambda: launch.prototype_scores(
            regions, queries, embeddings @ weight, embeddings @ bias, 1.0, False
        ),
        "attend_one_tile" if small else "attend_tiled": lambda: launch.attend(
            regions, queries, values, embeddings, 1.0, "cosine", False
        ),
    }
    for kernel, run in runs.items():
        shipped = configs.TABLE[kernel][target]
        axes = {
            "BLOCK_C": (64, 128), "BLOCK_N": (64, 128, 256), "BLOCK_T": (64, 128),
            "BLOCK_D": (32, 64, 128), "BLOCK_V": (32, 64, 128),
        }  # fmt: skip
        used = [axis for axis in axes if axis in shipped[0].blocks]
        grid = itertools.product(*(axes[axis] for axis in used), (4, 8), (2, 3, 4))
        timings = []
        for *sizes, warps, stages in itertools.islice(grid, 2 if rehearsal else None):
            blocks = dict(zip(used, sizes))
            if blocks.get("BLOCK_N", shape.T) < shape.T:
                continue
            configs.TABLE[kernel][target] = [configs.Config(blocks, warps, stages)]
            launch._tuners.clear()
            try:
                with torch.no_grad():
                    run()
                    timings.append({**blocks, "warps": warps, "stages": stages, "s": _seconds(run, device)})
            except Exception as failure:  # too much shared memory, or a tile that Triton cannot compile
                print(f"  {kernel} {blocks}: {type(failure).__name__}", file=sys.stderr)
        configs.TABLE[kernel][target] = shipped
        launch._tuners.clear()
        best = sorted(timings, key=lambda timing: timing["s"])[:5]
        print(f"{shape.name}, {kernel}: best tiles of {len(timings)}", *best, sep="\n  ")
        yield {"shape": shape.name, "kernel": kernel, "best": best}


def table(rows: list[Row]) -> str:
    """The rows as text; a speed-up is over eager on the same shape, op and passes."""
    columns = f"{'us':>10}{'MB':>9}{'share':>8}{'x eager':>9}{'error':>10}"
    lines = [f"{'shape':18}{'op':18}{'rival':22}{'passes':9}{columns}"]
    base = {(r.shape, r.op, r.passes): r.seconds for r in rows if r.rival == "eager"}
    for r in rows:
        head = f"{r.shape:18}{r.op:18}{r.rival:22}{r.passes:9}"
        if r.seconds is None:
            lines.append(f"{head}{r.note}")
            continue
        eager_seconds = base.get((r.shape, r.op, r.passes))
        ratio = f"{eager_seconds / r.seconds:8.1f}x" if eager_seconds else " " * 9
        share = f"{r.share:8.0%}" if r.share is not None else " " * 8
        peak = (r.peak or 0) / 1e6
        lines.append(f"{head}{r.seconds * 1e6:10.1f}{peak:9.1f}{share}{ratio}{r.error:10.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
