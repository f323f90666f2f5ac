"""The number of processors this process may use, from its affinity and the quota of its control group; their maker."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def usable(root: Path = Path("/")) -> int:
    """The number of processors this process may use, at least 1.

    Args:
        root: where `proc` and `sys` lie, for tests.

    >>> usable() >= 1
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


@functools.cache
def made_by_intel() -> bool:
    """Whether the processor is Intel's, whose own library of products PyTorch uses."""
    return "GenuineIntel" in (_read(Path("/proc/cpuinfo"))[:1000] or platform.processor())


def _quotas(root: Path) -> Iterator[float]:
    """The processors that each control group above this process allows; empty if no group sets a limit."""
    groups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = (
            groups / "cpu" if controllers else groups
        )  # version 1 names its controllers, version 2 does not
        here = Path(path.strip("/"))
        for folder in (base / here, *(base / parent for parent in here.parents), base):
            limit = _read(folder / "cpu.max").split()
            if not limit:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                limit = [quota.strip(), period.strip()]
            if (
                len(limit) == 2
                and limit[0].isdigit()
                and limit[1].isdigit()
                and int(limit[0])
                and int(limit[1])
            ):
                yield int(limit[0]) / int(limit[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
