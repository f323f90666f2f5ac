"""21,841 classes in one process: time, and resident memory beside the inputs, forward and backward."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import re, time, torch
from fastzsl.ops import attended_scores
B, T, C, d, m = 16, 49, 21841, 2048, 500
X, H, W, b, K = (torch.randn(*s) for s in ((B, T, d), (C, d), (m, d), (m,), (C, m)))
H /= d ** 0.5
backward = BACKWARD
leaves = [H, W, b, K] if backward else []
labels = torch.randint(C, (B,))
def step(C):
    own = [t[:C].detach().requires_grad_(backward) for t in (H, K)]
    weight, bias = (t.detach().requires_grad_(backward) for t in (W, b))
    scores = attended_scores(X, own[0], weight, bias, own[1], similarity="SIMILARITY", backend="native")
    if backward:
        torch.nn.functional.cross_entropy(10 * scores, labels % C).backward()
step(64)
own = sum(t.numel() * 4 for t in leaves)
size = sum(t.numel() * 4 for t in (X, H, W, b, K))
# From here on: a peak of the imports, or pages that the system has taken back since, must not count.
open("/proc/self/clear_refs", "w").write("5")  # the highest resident size becomes the present one
resident = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = resident()
times = []
for _ in range(STEPS):
    start = time.perf_counter()
    step(C)
    times.append(time.perf_counter() - start)
    if len(times) == 1:
        first = resident() - before
grown = resident() - before
print(size, own, first, grown, min(times))
"""


def many_classes(steps: int = 3) -> dict[str, dict[str, float]]:
    """For each similarity and pass: bytes of inputs and of gradients, growth of the resident memory, seconds.

    "growth" is the highest resident size of all steps over that before the first, gradients included; "first" that
    after one step. A training whose memory is flat has the two nearly equal.
    """
    table = {}
    for similarity in ("dot", "cosine"):
        for backward in (False, True):
            code = CODE.replace("SIMILARITY", similarity).replace("BACKWARD", str(backward))
            code = code.replace("STEPS", str(steps))
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            size, own, first, grown, seconds = map(float, done.stdout.split())
            name = f"{similarity}, forward + backward" if backward else similarity
            table[name] = {
                "inputs": size,
                "gradients": own,
                "first": first,
                "growth": grown,
                "seconds": seconds,
            }
            print(
                f"21,841 classes, {name}: memory grew by {grown / 1e6:.0f} MB (first step {first / 1e6:.0f}), of it "
                f"gradients {own / 1e6:.0f}, beside {size / 1e6:.0f} MB of inputs; {seconds:.2f} s a step"
            )
    return table
