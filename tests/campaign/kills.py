"""SIGKILL at random moments, then the same command again: the same bits as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections import Counter

from jobs import Place


def kills(rng: random.Random, place: Place, deadline: float, found: list[str]) -> Counter[str]:
    """Each job is killed once to six times and then continued until its end."""
    tried: Counter[str] = Counter()
    jobs = list(place.jobs)
    while time.monotonic() < deadline:
        rng.shuffle(jobs)
        for job in jobs:
            if time.monotonic() > deadline:
                break
            known = job.undisturbed(place, found)
            if known is None:
                continue
            out = place.new("killed")
            cache = place.new("cache") if rng.random() < 0.3 else None  # extraction is part of the job
            story = "killed" + (" with a cache of its own" if cache else "")
            for _ in range(rng.randint(1, 6)):
                moment = rng.uniform(0, known[1])
                story += f" after {moment:.2f} s"
                run = job.start(place, out, cache)
                time.sleep(moment)
                tried[job.name if run.kill() else "ended before the kill"] += 1
            job.finish(place, out, found, story, cache)
    return tried
