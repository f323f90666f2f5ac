"""Small pieces of work whose result is known: trainings, an extraction, a search, an experiment."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from runs import Run

METHODS = (
    "attended", "pooled", "eszsl", "sae", "lesae", "ale", "sje", "devise", "conse", "sync", "sse", "dcn",
    "relation-net", "gazsl", "f-clswgan", "se-gzsl", "dazle",
)  # fmt: skip
SHORT: dict[str, list[str]] = {
    "attended": ["--epochs", "12", "--hidden", "64"], "pooled": ["--epochs", "12", "--hidden", "64"],
    "dcn": ["--epochs", "20"], "relation-net": ["--epochs", "20", "--hidden", "64", "--class-hidden", "64"],
    "gazsl": ["--steps", "15", "--hidden", "64", "--batch-size", "16"],
    "f-clswgan": ["--epochs", "10", "--hidden", "64"], "se-gzsl": ["--epochs", "6"], "dazle": ["--epochs", "6"],
}  # fmt: skip
"""Settings with which a training takes a second or two."""
TIMES = ("fit_seconds", "score_seconds_per_1000", "data_wait")
numbers = itertools.count()


@dataclass
class Place:
    """Where a campaign works.

    Attributes:
        folder: for everything.
        jobs: what is tried.
        known: job -> its result without disturbance and the seconds it took.
    """

    folder: Path
    jobs: list[Job]
    known: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "data"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def new(self, name: str) -> Path:
        return self.folder / f"{name}-{next(numbers)}"

    def start(
        self,
        command: str,
        words: list[str],
        cache: Path | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> Run:
        return Run(command, words, self.new("stderr"), cache or self.cache, prepare)


@dataclass(frozen=True)
class Job:
    """A command with its arguments.

    Attributes:
        name: for the counts.
        command: of fastzsl.
        words: root, out -> arguments; the same again continue a job that was stopped.
        ends: out -> what must be the same however the job was stopped.
    """

    name: str
    command: str
    words: Callable[[Path, Path], list[str]]
    ends: Callable[[Path], dict[str, Any]]

    def start(
        self, place: Place, out: Path, cache: Path | None = None, prepare: Callable[[], object] = lambda: None
    ) -> Run:
        return place.start(self.command, self.words(place.root, out), cache, prepare)

    def undisturbed(self, place: Place, found: list[str]) -> tuple[dict[str, Any], float] | None:
        """Its result and its seconds when nothing stops it; run once."""
        if self.name not in place.known:
            out = place.new("whole")
            if not place.known:
                self.start(place, place.new("first")).wait()  # extracts the features that all jobs share
            began = time.monotonic()
            fault = self.start(place, out).fault(allowed=(0,))
            if fault:
                report(found, f"{self.name}, undisturbed: {fault}")
                return None
            place.known[self.name] = (self.ends(out), time.monotonic() - began)
        return place.known[self.name]

    def finish(
        self, place: Place, out: Path, found: list[str], story: str, cache: Path | None = None
    ) -> bool:
        """Continue what was stopped; it must end like the undisturbed job."""
        fault = self.start(place, out, cache).fault(allowed=(0,))
        if fault:
            report(found, f"{self.name}, {story}: {fault}")
            return False
        return self.compare(place, out, found, story)

    def compare(self, place: Place, out: Path, found: list[str], story: str) -> bool:
        expected, got = place.known[self.name][0], self.ends(out)
        for name in dict.fromkeys((*expected, *got)):
            if expected.get(name) != got.get(name):
                shown = f"{expected.get(name)!r:.150} became {got.get(name)!r:.150}"
                report(found, f"{self.name}, {story}: other {name}: {shown}")
                return False
        return True


def report(found: list[str], line: str) -> None:
    found.append(line)
    print("FOUND", line, flush=True)


def all_jobs(starts: Sequence[str] | None = None) -> list[Job]:
    """Trainings, and three times each of the other commands; those whose name has one of the starts."""
    trainings = [Job(f"train {m}", "train", _training(m), _training_ends) for m in METHODS]
    others = [
        Job("extract", "extract", _extraction, _extraction_ends),
        Job("reproduce", "reproduce", _experiment, _experiment_ends),
        Job("tune", "tune", _search, _search_ends),
    ]
    return [job for job in trainings + 3 * others if starts is None or job.name.startswith(tuple(starts))]


def make_root(root: Path) -> Path:
    """Seven classes of nine small images."""
    rng = np.random.default_rng(0)
    lines = ["class,split,a,b,c"]
    for i in range(7):
        (root / "images" / f"c{i}").mkdir(parents=True)
        for k in range(9):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"c{i}" / f"{k}.png")
        lines.append(f"c{i},{'unseen' if i > 4 else 'seen'},{i & 1},{i >> 1 & 1},{i >> 2}")
    (root / "classes.csv").write_text("\n".join(lines) + "\n")
    return root


BACKBONE = ["backbone=timm/test_resnet", "backbone_weights=random"]


def training_words(root: Path, out: Path) -> list[str]:
    """The arguments that all trainings share."""
    return [
        "--dataset", "folder", "--root", str(root), "--out", str(out), "--backbone", "timm/test_resnet",
        "--backbone-weights", "random", "--gamma-folds", "1", "--accelerator", "cpu", "--checkpoint-steps", "5",
    ]  # fmt: skip


def _training(method: str) -> Callable[[Path, Path], list[str]]:
    return lambda root, out: [
        *training_words(root, out), "--resume", "--method", method, *SHORT.get(method, [])
    ]  # fmt: skip


def _training_ends(out: Path) -> dict[str, Any]:
    log = (
        [json.loads(line) for line in (out / "metrics.jsonl").open()]
        if (out / "metrics.jsonl").exists()
        else []
    )
    return {
        "files": _names(out),
        "weights": (out / "model.safetensors").read_bytes(),
        "gamma": (out / "gamma.json").read_text(),
        "results": json.loads((out / "results.json").read_text()),
        "log": _without_times(log),
    }


def _extraction(root: Path, out: Path) -> list[str]:
    return [
        "--dataset", "folder", "--root", str(root), "--out", str(out / "maps.h5"), "--batch-size", "2",
        "--backbone", "timm/test_resnet", "--backbone-weights", "random", "--image-size", "96", "--device", "cpu",
    ]  # fmt: skip


def _extraction_ends(out: Path) -> dict[str, Any]:
    with h5py.File(out / "maps.h5", "r", locking=False) as file:
        contents = {name: file[name][...].tolist() for name in file}
        return {"files": _names(out), "attributes": dict(file.attrs), **contents}


def _experiment(root: Path, out: Path) -> list[str]:
    return [
        "--datasets", "folder", "--root", str(root), "--out", str(out), "--seeds", "1", "--no-sweep",
        "--methods", "eszsl", "conse", "--workers", "1",
        "--set", "epochs=3", "gamma_folds=1", "hidden=8", "accelerator=cpu", *BACKBONE,
    ]  # fmt: skip


def _experiment_ends(out: Path) -> dict[str, Any]:
    tables = {p.name: p.read_text() for p in out.glob("table*.csv")}
    results = _without_times(json.loads((out / "results.json").read_text()))
    return {"files": _names(out), "results": results, **tables}


def _search(root: Path, out: Path) -> list[str]:
    return [
        "--dataset", "folder", "--root", str(root), "--out", str(out), "--method", "eszsl",
        "--grid", "log_gamma=-1,0,1", "log_lambda=-1,0", "--folds", "2", "--workers", "1",
        "--set", "accelerator=cpu", *BACKBONE,
    ]  # fmt: skip


def _search_ends(out: Path) -> dict[str, Any]:
    names = ("config.yaml", "selection.json", "trials.csv")
    return {"files": _names(out), **{name: (out / name).read_text() for name in names}}


def _names(out: Path) -> list[str]:
    """Everything that a job leaves; a resumed training has several files of events."""
    names = {str(p.relative_to(out)) for p in out.rglob("*") if not p.name.startswith("events.out")}
    return sorted(names)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [_without_times(v) for v in value]
    return value
