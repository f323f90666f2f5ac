"""Affinity and control groups bound the number of processors; neither is a reason for an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastzsl.processors import usable

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert usable(tmp_path) == ALLOWED


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("max 100000", ALLOWED), ("100000 100000", 1), ("10000 100000", 1), ("junk", ALLOWED)],
)
def test_quota_of_version_2(limit: str, wanted: int, tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/job/step\n")
    write(tmp_path / "sys/fs/cgroup/job/cpu.max", limit + "\n")  # of the group above ours
    assert usable(tmp_path) == wanted


@pytest.mark.parametrize(("quota", "wanted"), [("-1", ALLOWED), ("50000", 1)])
def test_quota_of_version_1(quota: str, wanted: int, tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "3:memory:/job\n2:cpu,cpuacct:/job\n")
    write(tmp_path / "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", quota + "\n")
    write(tmp_path / "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    assert usable(tmp_path) == wanted


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_is_obeyed() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from fastzsl.processors import usable; print(usable())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
