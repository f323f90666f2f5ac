"""Random command lines, drawn from each command's own flags with wrong, extreme and absent values."""

from __future__ import annotations

import importlib
import random
import signal
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from jobs import BACKBONE, METHODS, SHORT, Place, report, training_words
from runs import COMMANDS

VALUES = (
    "0", "1", "2", "-1", "nan", "inf", "1e999", "1e-999", "9223372036854775808", "-9223372036854775809", "1" * 400,
    "", " ", "x", "None", "true", "[1", "a=b", "eta=1", "alpha=1,2", "=", "--", "\x1b[31m", "$x_{$", "../..", ".",
    "/dev/null", "/dev/zero", "/proc/none/file", "shapes", "folder", "hdf5", "cub", "eszsl", "cpu", "auto", "30m",
    "\udcff", "1_0", "０", "0x10", "1e3", "+1", "~", "*", "\n", "a" * 5000, "data", "data/classes.csv", "run",
)  # fmt: skip


def command_lines(rng: random.Random, place: Place, deadline: float, found: list[str]) -> Counter[str]:
    """Exit code 0 or 2, one line of error, no traceback, no hang."""
    tried: Counter[str] = Counter()
    run = place.new("run")
    fault = place.start("train", [*training_words(place.root, run), "--epochs", "1", "--hidden", "8"]).fault(
        (0,)
    )
    if fault:
        report(found, fault)
    while time.monotonic() < deadline:
        command = rng.choice(COMMANDS)
        words = _start_of(command, rng, place, run)
        by_default = not words  # which may be an experiment of an hour
        flags = _flags_of(command, words)
        for flag in rng.sample(flags, min(len(flags), rng.randint(1, 3))):
            words.append(flag)
            if rng.random() < 0.85:
                words.append(rng.choice(VALUES))
        one = place.start(command, words)
        fault = one.fault()
        if by_default and one.poll() == -signal.SIGKILL:
            fault = None
        if fault:
            report(found, fault)
        tried[f"{command}: {'fault' if fault else f'exit {one.poll()}'}"] += 1
    return tried


def _start_of(command: str, rng: random.Random, place: Place, run: Path) -> list[str]:
    """Words that make a command work, most of the time, so that the random flags are reached."""
    if rng.random() < 0.1:
        return []
    out, root = place.new("out"), place.root
    if command == "train":
        method = rng.choice(METHODS)
        return [*training_words(root, out), "--method", method, *SHORT.get(method, [])]
    return {
        "eval": [str(run)],
        "predict": [str(run), str(root / "images" / "c1" / "0.png")],
        "tune": ["--dataset", "folder", "--root", str(root), "--out", str(out), "--method", "eszsl",
                 "--grid", "log_gamma=0", "--folds", "2", "--workers", "1", "--set", *BACKBONE],
        "reproduce": ["--datasets", "folder", "--root", str(root), "--out", str(out), "--seeds", "1", "--no-sweep",
                      "--methods", "eszsl", "--workers", "1", "--set", "epochs=1", "gamma_folds=0", "hidden=8",
                      *BACKBONE],
        "extract": ["--dataset", "folder", "--root", str(root), "--out", str(out.with_suffix(".h5")),
                    "--backbone", "timm/test_resnet", "--backbone-weights", "random"],
        "make_dataset": ["--images", str(root / "images"), "--attributes", str(root / "classes.csv"),
                         "--out", str(out)],
        "info": ["--json"],
    }[command]  # fmt: skip


def _flags_of(command: str, words: list[str]) -> list[str]:
    """The flags of a command; of `train` those of the method that `words` name."""
    if command == "train":
        from fastzsl.methods import METHODS
        from fastzsl.training.settings import Settings

        settings = Settings()
        groups = [getattr(settings, g.name) for g in fields(settings) if g.name != "method"]
        named = words[words.index("--method") + 1] if "--method" in words else "attended"
        names = [f.name for group in [*groups, METHODS[named]()] for f in fields(group)]
        return ["--method", "--config", *(f"--{n.replace('_', '-')}" for n in dict.fromkeys(names))]
    module: Any = importlib.import_module(f"fastzsl.{command}")
    return [f"--{f.name.replace('_', '-')}" for f in fields(module.Settings)]
