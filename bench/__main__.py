"""Time the native kernels and all rivals, and write the tables of this machine: `python -m bench [word ...]`.

The cases whose names contain all given words are run. Results are collected in bench/results, in two files (.json and
.md) for each processor, instruction set and number of threads.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.cases import CASES, contestants, inputs_of, truth_of
from bench.crossover import crossover
from bench.job import whole_job
from bench.machine import conditions
from bench.many_classes import many_classes
from bench.measure import check, interleaved
from bench.report import store
from bench.step import STEPS, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "words",
        nargs="*",
        help='words of the name of a case or step ("training step": all steps), memory, crossover, or job (the whole '
        "command, some minutes); none: all but the job",
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each case, after its check")
    parser.add_argument(
        "--warm", action="store_true", help="only compile and check, so that a later run starts at once"
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="for a machine that others use: one thread, and the processor time of that thread instead of the clock",
    )
    parser.add_argument(
        "--plain", action="store_true", help="leave out what torch.compile has to compile first"
    )
    options = parser.parse_args()
    clock = time.thread_time if options.shared else time.perf_counter
    if options.shared:
        torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    for case in CASES:
        if not all(word in case.name.replace(",", "").split() for word in options.words):
            continue
        torch.compiler.reset()  # otherwise the cases share one limit of recompilations
        inputs = inputs_of(case)
        runs = contestants(case, inputs)
        if options.plain:
            runs = {name: run for name, run in runs.items() if "compiled" not in name}
        check(runs, truth_of(case, inputs), case.dtype)
        if options.warm:
            continue
        times, peak = interleaved(runs, case.dtype, clock, options.seconds, rounds=3000)
        value = {"times": times, "peak": peak, "operations": case.operations}
        print(f"kept in {store(case.name, value, conditions(options.shared))}")
        for name, seconds in times.items():
            share = case.operations / seconds / peak
            print(
                f"{case.name:60} {name:32} {1e3 * seconds:9.3f} ms  {seconds / times['native']:6.2f}x  {share:6.1%}"
            )
    for step in STEPS:
        if options.warm or not all(word in step.name.replace(",", "").split() for word in options.words):
            continue
        value = measure(step, clock, options.seconds, compiled=not options.plain)
        print(f"kept in {store(step.name, value, conditions(options.shared))}")
    if not options.warm and options.words == ["job"]:
        store("whole job", whole_job(compiled=not options.plain), conditions(shared=False))
    if not options.warm and options.words in ([], ["memory"]):
        store("memory", many_classes(), conditions(shared=False))
    if not options.warm and options.words in ([], ["crossover"]):
        store("crossover", crossover(clock=clock), conditions(options.shared))


if __name__ == "__main__":
    main()
