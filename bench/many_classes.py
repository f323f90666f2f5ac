"""The resident memory that 21,841 classes need in addition to their inputs, measured in a separate process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import re, time, torch
from fastzsl.ops import attended_scores
B, T, C, d, m = 16, 49, 21841, 2048, 500
X, H, W, b, K = (torch.randn(*s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m)))
attended_scores(X[:1], H[:64], W, b, K[:64], similarity="cosine", backend="native")
size = sum(t.numel() * 4 for t in (X, H, W, b, K))
# From here on: a peak of the imports, or pages that the system has taken back since, must not count.
open("/proc/self/clear_refs", "w").write("5")  # the highest resident size becomes the present one
resident = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = resident()
start = time.perf_counter()
attended_scores(X, H, W, b, K, similarity="SIMILARITY", backend="native")
seconds = time.perf_counter() - start
grown = resident() - before
print(size, grown, seconds)
"""


def many_classes() -> dict[str, dict[str, float]]:
    """For each similarity: bytes of the inputs, growth of the resident memory, seconds."""
    table = {}
    for similarity in ("dot", "cosine"):
        code = CODE.replace("SIMILARITY", similarity)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        size, grown, seconds = map(float, done.stdout.split())
        table[similarity] = {"inputs": size, "growth": grown, "seconds": seconds}
        print(
            f"21,841 classes, {similarity}: memory grew by {grown / 1e6:.0f} MB beside {size / 1e6:.0f} MB of inputs"
        )
    return table
