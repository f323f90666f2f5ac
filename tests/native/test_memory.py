"""21,841 classes: memory grows by less than twice the inputs, where building X~ would take 2.9 GB."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import re, torch
from fastzsl.ops import attended_scores
torch.manual_seed(0)
B, T, C, d, m = 16, 49, 21841, 2048, 500
inputs = [torch.randn(*s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m))]
X, H, W, b, K = inputs
attended_scores(X[:1], H[:64], W, b, K[:64], similarity=SIMILARITY, backend="native")
size = sum(t.numel() * 4 for t in inputs)
open("/proc/self/clear_refs", "w").write("5")  # the highest resident size becomes the present one
resident = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = resident()
scores = attended_scores(*inputs, similarity=SIMILARITY, backend="native")
grown = resident() - before
assert scores.isfinite().all()
print(grown / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the highest resident size anew")
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_many_classes_in_little_memory(similarity: str) -> None:
    code = CODE.replace("SIMILARITY", repr(similarity))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(f"resident memory grew by {float(done.stdout):.2f} times the inputs")
    assert float(done.stdout) < 2
