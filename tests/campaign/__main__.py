"""A campaign against the commands. Not a test: a program.

    python tests/campaign --minutes 60 --seed 0

Tries random command lines, kills and resumes trainings, extractions and experiments at random moments, runs two
processes on one folder and on one cache, fills the disk, and limits the memory. Prints what was tried, how often, and
what was found; exit code 1 if anything was found. docs/reliability.md has the figures.

Each command runs in a process forked from this one, which has imported everything once. So a trial takes a second or
two, and a crash of one ends no other. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Before PyTorch is imported: a forked process must not inherit threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "agg"

from command_lines import command_lines
from jobs import Place, all_jobs, make_root
from kills import kills
from limits import full_disk, little_memory
from pairs import pairs
from runs import import_everything

Part = Callable[[random.Random, Place, float, list[str]], Counter[str]]
PARTS: dict[str, Part] = {
    "commands": command_lines,
    "kills": kills,
    "pairs": pairs,
    "disk": full_disk,
    "memory": little_memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for all parts together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--jobs", nargs="*", help='only jobs that start so, such as extract or "train sae"')
    options = parser.parse_args()
    import_everything()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        place = Place(Path(made).resolve() / "a" / "b" / "c", all_jobs(options.jobs))  # for the word "../.."
        place.folder.mkdir(parents=True)
        os.chdir(place.folder)  # some of the random words are names of output files
        make_root(place.root)
        for part in options.parts:
            began, before = time.monotonic(), len(found)
            deadline = began + 60 * options.minutes / len(options.parts)
            tried = PARTS[part](random.Random(f"{part} {options.seed}"), place, deadline, found)
            print(
                f"{part}, seed {options.seed}: {sum(tried.values())} tried in {time.monotonic() - began:.0f} s, "
                f"{len(found) - before} found; " + ", ".join(f"{k} {n}" for k, n in sorted(tried.items())),
                flush=True,
            )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
