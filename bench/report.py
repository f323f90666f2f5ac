"""Save results and write them as Markdown: bench/results/MACHINE.json and .md, one pair of files per machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.cases import CASES, Case
from bench.crossover import NOISE, slower_cells
from bench.machine import Facts, machine, slug
from bench.rivals import NAIVE
from bench.step import STEPS

RESULTS = Path(__file__).parent / "results"


def store(key: str, value: Any, measured: Facts) -> Path:
    """Save one result of this machine, write its table again and return where; other machines' files are unchanged.

    Args:
        key: name of the case or the step, "whole job", "memory" or "crossover".
        value: the measured value.
        measured: `bench.machine.conditions` of this measurement.

    Raises:
        ValueError: the file of this name is of another machine.
    """
    here = machine()
    path = RESULTS / f"{slug(here)}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"machine": here, "results": {}}
    if kept["machine"] != here:
        raise ValueError(f"{path} holds results of {kept['machine']}; this machine is {here}")
    kept["results"][key] = {"measured": measured, "value": value}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(kept))
    return path


def goals_met(case: Case, results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(quantity, floor, measured) for each goal of a case."""
    times = results[case.name]["value"]["times"]
    ours = times["native"]
    groups = {
        # "naive" is the fastest of the paper's pipelines in eager mode; the other rivals may be compiled.
        "naive": min(times[name] for name in NAIVE if name in times),
        "rewritten": min((t for name, t in times.items() if name.startswith("rewritten")), default=0.0),
        "best": min(t for name, t in times.items() if name not in ("native", "auto")),
    }
    measured = []
    for quantity, floor in case.goals:
        if quantity == "peak":
            value = results[case.name]["value"]["operations"] / ours / results[case.name]["value"]["peak"]
        elif quantity == "f32":
            value = (
                results[CASES[0].name]["value"]["times"]["native"] / ours
                if CASES[0].name in results
                else float("nan")
            )
        else:
            value = groups[quantity] / ours
        measured.append((quantity, floor, value))
    return measured


WORDS = {
    "peak": "share of the peak",
    "naive": "× the fastest naive pipeline in eager mode",
    "rewritten": "× the best rewriting in PyTorch, compiled or not",
    "best": "× the best rival, compiled or not",
    "f32": "× our float32",
}


def markdown(kept: dict[str, Any]) -> str:
    """The whole page of one machine."""
    results = kept["results"]
    lines = _head(kept["machine"], results) + _goals(results)
    for case in CASES:
        if case.name in results:
            lines += _case(case, results[case.name])
    lines += _steps(results)
    if "whole job" in results:
        lines += _job(results["whole job"])
    if "memory" in results:
        lines += _memory(results["memory"])
    if "crossover" in results:
        lines += _crossover(results["crossover"])
    return "\n".join(lines)


def _head(of: Facts, results: dict[str, Any]) -> list[str]:
    def all_of(fact: str) -> str:
        return ", ".join(sorted({result["measured"][fact] for result in results.values()}))

    return [
        f"# Native CPU kernels on {of['processor']}, {of['isa']}",
        "",
        f"Processor: {of['processor']}. Instruction set: {of['isa']}. Threads: {of['threads']}.",
        f"PyTorch {all_of('torch')}. Python {all_of('python')}.",
        f"Measured on {all_of('date')}. Timed: {all_of('clock')}.",
        "The figures are of this machine alone, others differ. Each table names its day.",
        "",
        "T = 49 regions. Medians; all contestants run in turn in one process, after a check against float64.",
        "The peak is measured between the rounds, from registers alone on all threads: float32 multiply-adds,",
        "or the bfloat16 products of the unit in use. On AMX float32 is multiplied in parts on that unit,",
        "so that its share of the multiply-add peak can pass 100% ([notes](../NOTES.md)).",
        "Written by `python -m bench`.",
        "",
    ]


def _measured(result: dict[str, Any]) -> str:
    m = result["measured"]
    return f"Measured on {m['date']} with PyTorch {m['torch']}, Python {m['python']}, {m['clock']}."


def _goals(results: dict[str, Any]) -> list[str]:
    lines = ["| case | quantity | floor | measured | |", "|---|---|---|---|---|"]
    ran = [case for case in CASES if case.name in results]
    for case in ran:
        for quantity, floor, value in goals_met(case, results):
            shown = (f"{floor:.0%}", f"{value:.1%}") if quantity == "peak" else (f"{floor:g}", f"{value:.2f}")
            verdict = "reached" if value >= floor else "**missed**"
            lines.append(f"| {case.name} | {WORDS[quantity]} | {shown[0]} | {shown[1]} | {verdict} |")
    return [*lines, ""] if ran else []


def _case(case: Case, result: dict[str, Any]) -> list[str]:
    value = result["value"]
    operations, peak, ours = value["operations"], value["peak"], value["times"]["native"]
    lines = [
        f"## {case.name}",
        "",
        f"B={case.B}, C={case.C}, d={case.d}, m={case.m}; "
        f"{operations / 1e9:.2f} GFLOP in the planner's order; peak {peak / 1e9:.0f} GFLOP/s.",
        _measured(result),
        "",
        "| contestant | ms | time over native's | share of the peak |",
        "|---|---|---|---|",
    ]
    for name, seconds in sorted(value["times"].items(), key=lambda item: item[1]):
        share = operations / seconds / peak
        lines.append(f"| {name} | {1e3 * seconds:.3f} | {seconds / ours:.2f} | {share:.1%} |")
    return [*lines, ""]


def _steps(results: dict[str, Any]) -> list[str]:
    found = [step for step in STEPS if step.name in results]
    if not found:
        return []
    lines = [
        "## Training step",
        "",
        "Loss, backward pass and AdamW from stored float16 features, batch 64, region dropout 0.5: milliseconds,",
        "and in brackets the time over native's. Eager is the same model on plain PyTorch with our algebra;",
        "naive attends, then decodes. bf16-mixed is that precision of the command; the others are float32.",
        "",
    ]
    names = list(dict.fromkeys(name for step in found for name in results[step.name]["value"]["times"]))
    lines += ["| step | " + " | ".join(names) + " | measured |", "|---" * (len(names) + 2) + "|"]
    for step in found:
        times = results[step.name]["value"]["times"]
        numbers = [
            f"{1e3 * times[name]:.1f} ({times[name] / times['native']:.2f})" if name in times else ""
            for name in names
        ]
        shapes = (
            f"{step.name.removeprefix('training step, ')} (d {step.d}, m {step.m}, C {step.seen}, T {step.T})"
        )
        lines.append(
            f"| {shapes} | " + " | ".join(numbers) + f" | {results[step.name]['measured']['date']} |"
        )
    return [*lines, ""]


def _job(result: dict[str, Any]) -> list[str]:
    lines = [
        "## The whole command `python -m fastzsl.train`",
        "",
        _measured(result),
        "",
        "| | seconds |",
        "|---|---|",
    ]
    lines += [f"| {name} | {row['seconds']:.1f} |" for name, row in result["value"].items()]
    return [*lines, ""]


def _memory(result: dict[str, Any]) -> list[str]:
    lines = [
        "## 21,841 classes, m=500, B=16: resident memory beside the inputs",
        "",
        _measured(result),
        "",
        "With the backward pass the growth includes the gradients. It is that of all steps of one process.",
        "",
        "| similarity | inputs, MB | growth, MB | growth over inputs (below 2) | seconds |",
        "|---|---|---|---|---|",
    ]
    for similarity, row in result["value"].items():
        inputs, growth = row["inputs"], row["growth"]
        numbers = f"{inputs / 1e6:.0f} | {growth / 1e6:.0f} | {growth / inputs:.2f} | {row['seconds']:.2f}"
        lines.append(f"| {similarity} | {numbers} |")
    return [*lines, ""]


def _crossover(result: dict[str, Any]) -> list[str]:
    """The rows of older files are forward only and have no ratio of `auto`."""
    rows = result["value"]
    lines = [
        "## Where eager is as fast",
        "",
        "Eager's time over native's (above 1: native is faster), T=49, m=85.",
        "In brackets eager's time over that of `auto`, where measured.",
        _measured(result),
    ]
    slow = slower_cells(rows)
    if any("auto" in row for row in rows):
        lines.append(
            f"`auto` is slower than eager by more than {1 - NOISE:.0%} in {len(slow)} of {len(rows)} cells."
        )
    for op, which in dict.fromkeys((row["op"], row.get("gradients", "none")) for row in rows):
        own = [row for row in rows if (row["op"], row.get("gradients", "none")) == (op, which)]
        classes = sorted({row["C"] for row in own})
        passes = "forward" if which == "none" else f"forward + backward, gradients of {which}"
        lines += ["", f"`{op}`, {passes}", "", "| d | B | " + " | ".join(f"C={c}" for c in classes) + " |"]
        lines.append("|---|---" + "|---" * len(classes) + "|")
        for d, B in sorted({(row["d"], row["B"]) for row in own}):
            cells = {row["C"]: _cell(row) for row in own if (row["d"], row["B"]) == (d, B)}
            lines.append(f"| {d} | {B} | " + " | ".join(cells[c] for c in classes) + " |")
    return [*lines, ""]


def _cell(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f}" + (f" ({row['auto']:.2f})" if "auto" in row else "")
