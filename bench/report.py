"""Gather results in bench/results.json and write them as Markdown, bench/RESULTS.md."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from bench.cases import CASES, Case
from bench.rivals import NAIVE
from fastzsl import _native

HERE = Path(__file__).parent
JSON, MARKDOWN = HERE / "results.json", HERE / "RESULTS.md"


def machine(shared: bool) -> dict[str, Any]:
    """Processor, instruction set, threads, versions and what was timed."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {k.strip(): v.strip() for k, v in values.items()}
        name = f"{fields['model name']}, family {fields['cpu family']} model {fields['model']}"
    except (OSError, KeyError, ValueError):
        pass
    return {
        "processor": name,
        "isa": _native.isa(),
        "threads": torch.get_num_threads(),
        "clock": "processor time of the thread, on a machine busy with other work"
        if shared
        else "wall clock",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def store(key: str, value: Any) -> None:
    """Keep one result and write the table anew."""
    results = json.loads(JSON.read_text()) if JSON.exists() else {}
    results[key] = value
    JSON.write_text(json.dumps(results, indent=1) + "\n")
    MARKDOWN.write_text(markdown(results))


def goals_met(case: Case, results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(quantity, floor, measured) for each goal of a case."""
    times = results[case.name]["times"]
    ours = times["native"]
    groups = {
        # "naive": the fastest of the pipelines as the paper has them, in eager mode; the others compiled or not.
        "naive": min(times[name] for name in NAIVE if name in times),
        "rewritten": min((t for name, t in times.items() if name.startswith("rewritten")), default=0.0),
        "best": min(t for name, t in times.items() if name not in ("native", "auto")),
    }
    measured = []
    for quantity, floor in case.goals:
        if quantity == "peak":
            value = results[case.name]["operations"] / ours / results[case.name]["peak"]
        elif quantity == "f32":
            value = (
                results[CASES[0].name]["times"]["native"] / ours if CASES[0].name in results else float("nan")
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


def markdown(results: dict[str, Any]) -> str:
    """The whole page."""
    ran = [case for case in CASES if case.name in results]
    lines = ["# Native CPU kernels, measured", ""]
    if ran:
        m = results[ran[0].name]["machine"]
        lines += [
            f"{m['processor']}; {m['isa']}; threads: {m['threads']}; PyTorch {m['torch']}, Python {m['python']}.",
            f"Timed: {m['clock']}.",
            "T = 49 regions. Medians; all contestants run in turn in one process, after a check against float64.",
            "The peak is measured between the rounds, from registers alone on all threads: float32 multiply-adds,",
            "or the bfloat16 products of the unit in use. On AMX float32 is multiplied in parts on that unit,",
            "so that its share of the multiply-add peak can pass 100% (NOTES.md). Written by `python -m bench`.",
            "",
            "| case | quantity | floor | measured | |",
            "|---|---|---|---|---|",
        ]
        for case in ran:
            for quantity, floor, value in goals_met(case, results):
                shown = (
                    (f"{floor:.0%}", f"{value:.1%}") if quantity == "peak" else (f"{floor:g}", f"{value:.2f}")
                )
                verdict = "reached" if value >= floor else "**missed**"
                lines.append(f"| {case.name} | {WORDS[quantity]} | {shown[0]} | {shown[1]} | {verdict} |")
        lines.append("")
    for case in ran:
        result = results[case.name]
        ours = result["times"]["native"]
        lines += [
            f"## {case.name}",
            "",
            f"B={case.B}, C={case.C}, d={case.d}, m={case.m}; "
            f"{result['operations'] / 1e9:.2f} GFLOP in the planner's order; peak {result['peak'] / 1e9:.0f} GFLOP/s.",
            "",
            "| contestant | ms | time over native's | share of the peak |",
            "|---|---|---|---|",
        ]
        for name, seconds in sorted(result["times"].items(), key=lambda item: item[1]):
            share = result["operations"] / seconds / result["peak"]
            lines.append(f"| {name} | {1e3 * seconds:.3f} | {seconds / ours:.2f} | {share:.1%} |")
        lines.append("")
    if "memory" in results:
        lines += ["## 21,841 classes, m=500, B=16: resident memory beside the inputs", ""]
        lines += [
            "| similarity | inputs, MB | growth, MB | growth over inputs (below 2) | seconds |",
            "|---|---|---|---|---|",
        ]
        for similarity, row in results["memory"].items():
            ratio = row["growth"] / row["inputs"]
            numbers = (
                f"{row['inputs'] / 1e6:.0f} | {row['growth'] / 1e6:.0f} | {ratio:.2f} | {row['seconds']:.2f}"
            )
            lines.append(f"| {similarity} | {numbers} |")
        lines.append("")
    if "crossover" in results:
        lines += [
            "## Where eager is as fast",
            "",
            "Eager's time over native's (above 1: native is faster), forward, T=49, m=85.",
        ]
        rows = results["crossover"]
        for op in dict.fromkeys(row["op"] for row in rows):
            classes = sorted({row["C"] for row in rows})
            lines += ["", f"`{op}`", "", "| d | B | " + " | ".join(f"C={c}" for c in classes) + " |"]
            lines.append("|---|---" + "|---" * len(classes) + "|")
            for d, B in sorted({(row["d"], row["B"]) for row in rows}):
                cells = {
                    row["C"]: row["ratio"] for row in rows if (row["op"], row["d"], row["B"]) == (op, d, B)
                }
                lines.append(f"| {d} | {B} | " + " | ".join(f"{cells[c]:.2f}" for c in classes) + " |")
        lines.append("")
    return "\n".join(lines)
