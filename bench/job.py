"""The whole default command, `python -m fastzsl.train`: start-up, features, training, gamma, figures and report."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOBS = {
    "native": ([], "auto"),
    "eager": ([], "eager"),
    "naive": (["--method", "naive"], "eager"),
    "eager, compiled": (["--method", "compiled-eager"], "eager"),
    "naive, compiled": (["--method", "compiled-naive"], "eager"),
}
"""Name -> arguments of the command, and FASTZSL_BACKEND."""


def whole_job(
    compiled: bool = True, rounds: int = 1, arguments: tuple[str, ...] = ()
) -> dict[str, dict[str, float]]:
    """For each contestant: seconds of the command (the fastest of `rounds`) from an empty cache.

    Args:
        compiled: also those under torch.compile.
        rounds: all contestants run in turn, so often.
        arguments: more arguments for every command.
    """
    table: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, (own, backend) in JOBS.items():
            if "compiled" in name and not compiled:
                continue
            with tempfile.TemporaryDirectory() as folder:
                environment = {
                    **os.environ,
                    "FASTZSL_BACKEND": backend,
                    "FASTZSL_CACHE": f"{folder}/cache",
                    "FASTZSL_METHODS": str(ROOT / "bench" / "naive.py"),
                    "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
                }
                command = [sys.executable, "-m", "fastzsl.train", *own, *arguments, "--out", f"{folder}/run"]
                start = time.perf_counter()
                subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
                seconds = time.perf_counter() - start
            best = min(seconds, table.get(name, {}).get("seconds", float("inf")))
            table[name] = {"seconds": best}
            print(f"whole job, {name:18} {seconds:7.1f} s")
    return table
