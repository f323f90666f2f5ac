"""A full disk and too little memory: one line of error, and the same result once there is enough."""

from __future__ import annotations

import functools
import os
import random
import resource
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from jobs import Job, Place, report

KIB, MIB = 2**10, 2**20


def full_disk(rng: random.Random, place: Place, deadline: float, found: list[str]) -> Counter[str]:
    """Output and cache on a small file system (Linux, root), or with a limit on the size of a file."""
    tried: Counter[str] = Counter()
    jobs = list(place.jobs)
    while time.monotonic() < deadline:
        rng.shuffle(jobs)
        for job in jobs:
            if time.monotonic() > deadline:
                break
            if job.undisturbed(place, found) is None:
                continue
            disk = place.new("disk")
            disk.mkdir()
            mounted = rng.random() < 0.7 and _mount(disk, "100m")
            try:
                tried["small file system" if mounted else "limit on a file's size"] += 1
                _fill(rng, place, job, disk, mounted, found)
            finally:
                if mounted:
                    subprocess.run(["umount", "-l", str(disk)], check=False)
    return tried


def _fill(rng: random.Random, place: Place, job: Job, disk: Path, mounted: bool, found: list[str]) -> None:
    out, cache = disk / "out", disk / "cache"
    share = rng.random()
    if mounted:
        size = max(8 * KIB, int(share * _needed(place, job)))
        _mount(disk, str(size), "remount")
        story = f"a disk of {size // KIB} KiB"
        first = job.start(place, out, cache)
    else:
        size = int(KIB * 2 ** (12 * share))
        story = f"files of at most {size // KIB} KiB"
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        first = job.start(place, out, cache, limit)
    fault = first.fault()
    if fault:
        report(found, f"{job.name}, {story}: {fault}")
    if mounted:
        _mount(disk, "100m", "remount")
    job.finish(place, out, found, f"{story}, then enough", cache)


_sizes: dict[str, int] = {}


def _needed(place: Place, job: Job) -> int:
    """Bytes that the job writes, features included."""
    if job.name not in _sizes:
        disk = place.new("measured")
        job.start(place, disk / "out", disk / "cache").wait()
        _sizes[job.name] = sum(4 * KIB + p.stat().st_blocks * 512 for p in disk.rglob("*"))
        shutil.rmtree(disk)
    return _sizes[job.name]


def _mount(folder: Path, size: str, *options: str) -> bool:
    """A file system in memory of that size; False where that is not possible."""
    words = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(folder)]
    try:
        return subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def little_memory(rng: random.Random, place: Place, deadline: float, found: list[str]) -> Counter[str]:
    """RLIMIT_AS a little above what the process has at its start; Linux only."""
    tried: Counter[str] = Counter()
    jobs = list(place.jobs)
    while time.monotonic() < deadline:
        rng.shuffle(jobs)
        for job in jobs:
            if time.monotonic() > deadline:
                break
            if job.undisturbed(place, found) is None:
                continue
            out, more = place.new("squeezed"), int(MIB * 2 ** rng.uniform(0, 9))
            cache = place.new("cache") if rng.random() < 0.5 else None
            run = job.start(place, out, cache, functools.partial(_limit_memory, more))
            story = f"{more / MIB:.0f} MiB more memory"
            fault = run.fault()
            tried["refused" if run.poll() == 2 else "ended"] += 1
            if fault:
                report(found, f"{job.name}, {story}: {fault}")
            job.finish(place, out, found, f"{story}, then enough", cache)
    return tried


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
