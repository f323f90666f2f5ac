"""What importing costs: the ops need torch only, and the package little time beyond torch's own."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, sys, time
import torch
before, start = set(sys.modules), time.process_time()
import fastzsl{part}
seconds = time.process_time() - start
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([seconds, sorted(new - sys.stdlib_module_names)]))
"""


def probe(part: str) -> tuple[float, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(part=part)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seconds, packages = json.loads(done.stdout)
    return seconds, packages


def test_the_ops_import_torch_only() -> None:
    """Modules that a package's own __init__ of torch has not loaded: fastzsl's, and more of torch at most."""
    assert set(probe(".ops")[1]) <= {"fastzsl", "torch"}


def test_the_package_takes_little_time_beyond_torch() -> None:
    """The goal is a tenth of a second of an idle processor; this allows ten times that."""
    assert min(probe("")[0] for _ in range(3)) < 1
