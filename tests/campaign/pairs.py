"""Two processes at the same time, on one output folder or on one cache."""

from __future__ import annotations

import random
import time
from collections import Counter

from jobs import Job, Place, report


def pairs(rng: random.Random, place: Place, deadline: float, found: list[str]) -> Counter[str]:
    """Of two on one folder one may be refused; two on one cache must both end. Results as of one alone."""
    tried: Counter[str] = Counter()
    jobs = list(place.jobs)
    while time.monotonic() < deadline:
        rng.shuffle(jobs)
        for job in jobs:
            if time.monotonic() > deadline:
                break
            if job.undisturbed(place, found) is None:
                continue
            name, action = rng.choice((("one folder", one_folder), ("one cache", one_cache)))
            action(rng, place, job, found)
            tried[f"{job.name.split()[0]}, {name}"] += 1
    return tried


def one_folder(rng: random.Random, place: Place, job: Job, found: list[str]) -> None:
    out, cache = place.new("shared"), place.new("cache") if rng.random() < 0.5 else place.cache
    runs = [job.start(place, out, cache)]
    later = rng.choice((0.0, rng.uniform(0, place.known[job.name][1])))
    time.sleep(later)
    runs.append(job.start(place, out, cache))
    story = f"two on one folder, the second after {later:.2f} s"
    if rng.random() < 0.3:
        time.sleep(rng.uniform(0, place.known[job.name][1]))
        first = runs.pop(0)
        first.kill()
        story += ", the first killed"
    faults = [run.fault() for run in runs]
    for fault in filter(None, faults):
        report(found, f"{job.name}, {story}: {fault}")
    if not any(faults):
        if len(runs) == 2 and all(run.poll() for run in runs):
            report(found, f"{job.name}, {story}: both were refused: {runs[1].errors()}")
        job.finish(place, out, found, story, cache)


def one_cache(rng: random.Random, place: Place, job: Job, found: list[str]) -> None:
    cache = place.new("cache")
    outs = [place.new("beside"), place.new("beside")]
    runs = []
    for out in outs:
        runs.append(job.start(place, out, cache))
        time.sleep(rng.choice((0.0, rng.uniform(0, 0.5))))
    for run, out in zip(runs, outs):
        fault = run.fault(allowed=(0,))
        if fault:
            report(found, f"{job.name}, two on one cache: {fault}")
        else:
            job.compare(place, out, found, "two on one cache")
