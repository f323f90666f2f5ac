"""A campaign against the commands: random kills that are resumed, and random command lines. Not a test: a program.

    python tests/campaign.py --minutes 60 --seed 0

Prints what was tried, how often, and what was found; exit code 1 if anything was. docs/reliability.md has figures.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMMANDS = ("train", "eval", "predict", "tune", "reproduce", "extract", "make_dataset", "info")
METHODS = ("attended", "pooled", "eszsl", "sae", "conse", "dcn", "relation-net", "f-clswgan")
SLOWEST = 60
"""Seconds after which a command counts as hanging."""
VALUES = (
    "0", "1", "2", "-1", "nan", "inf", "1e999", "1e-999", "9223372036854775808", "-9223372036854775809", "1" * 400,
    "", " ", "x", "None", "true", "[1", "a=b", "eta=1", "alpha=1,2", "=", "--", "\x1b[31m", "$x_{$", "../..", ".",
    "/dev/null", "/dev/zero", "/nonexistent/file", "shapes", "folder", "hdf5", "cub", "eszsl", "cpu", "auto", "30m",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="*", default=["commands", "kills"])
    options = parser.parse_args()
    rng = random.Random(options.seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["FASTZSL_CACHE"] = str(folder / "cache")
        os.chdir(folder)  # some of the random words are names of output files
        root = make_root(folder / "data")
        for part in options.parts:
            deadline = time.monotonic() + 60 * options.minutes / len(options.parts)
            tried = {"commands": commands, "kills": kills}[part](rng, folder, root, deadline, found)
            print(f"{part}: {sum(tried.values())} tried; " + ", ".join(f"{k} {n}" for k, n in tried.items()))
    for line in found:
        print("FOUND", line)
    return bool(found)


def make_root(root: Path) -> Path:
    """Seven classes of five small images."""
    rng = np.random.default_rng(0)
    lines = ["class,split,a,b,c"]
    for i in range(7):
        (root / "images" / f"c{i}").mkdir(parents=True)
        for k in range(5):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"c{i}" / f"{k}.png")
        lines.append(f"c{i},{'unseen' if i > 4 else 'seen'},{i & 1},{i >> 1 & 1},{i >> 2}")
    (root / "classes.csv").write_text("\n".join(lines) + "\n")
    return root


def small(root: Path, out: Path) -> list[str]:
    """A training that takes a second or two."""
    return [
        "--dataset", "folder", "--root", str(root), "--out", str(out), "--backbone", "timm/test_resnet",
        "--backbone-weights", "random", "--gamma-folds", "1", "--accelerator", "cpu",
    ]  # fmt: skip


def commands(rng: random.Random, folder: Path, root: Path, deadline: float, found: list[str]) -> Counter[str]:
    """Command lines drawn from each command's own flags: exit code 0 or 2, one line of error, no traceback, no hang."""
    tried: Counter[str] = Counter()
    run = folder / "run"
    call("train", [*small(root, run), "--epochs", "1", "--hidden", "8"], found)
    while time.monotonic() < deadline:
        command = rng.choice(COMMANDS)
        words = start_of(command, rng, folder, root, run)
        flags = flags_of(command)
        for flag in rng.sample(flags, min(len(flags), rng.randint(1, 3))):
            words.append(flag)
            if rng.random() < 0.85:
                words.append(rng.choice(VALUES))
        tried[f"{command}: {call(command, words, found)}"] += 1
    return tried


def start_of(command: str, rng: random.Random, folder: Path, root: Path, run: Path) -> list[str]:
    """Words that make a command work, most of the time, so that the random flags are reached."""
    if rng.random() < 0.1:
        return []
    out = folder / f"out-{rng.randrange(10**9)}"
    if command == "train":
        method = rng.choice(METHODS[:5])
        short = ["--epochs", "1", "--hidden", "8"] if method in ("attended", "pooled") else []
        return [*small(root, out), "--method", method, *short]
    return {
        "eval": [str(run)],
        "predict": [str(run), str(root / "images" / "c1" / "0.png")],
        "tune": ["--dataset", "folder", "--root", str(root), "--out", str(out), "--method", "eszsl",
                 "--grid", "log_gamma=0", "--folds", "2", "--workers", "1",
                 "--set", "backbone=timm/test_resnet", "backbone_weights=random"],
        "reproduce": ["--datasets", "folder", "--root", str(root), "--out", str(out), "--seeds", "1", "--no-sweep",
                      "--methods", "eszsl", "--workers", "1", "--set", "epochs=1", "gamma_folds=0", "hidden=8",
                      "backbone=timm/test_resnet", "backbone_weights=random"],
        "extract": ["--dataset", "folder", "--root", str(root), "--out", str(out.with_suffix(".h5")),
                    "--backbone", "timm/test_resnet", "--backbone-weights", "random"],
        "make_dataset": ["--images", str(root / "images"), "--attributes", str(root / "classes.csv"),
                         "--out", str(out)],
        "info": ["--json"],
    }[command]  # fmt: skip


def flags_of(command: str) -> list[str]:
    """The flags of a command."""
    if command == "train":
        from fastzsl.training.settings import Settings

        settings = Settings()
        names = [f.name for g in fields(settings) for f in fields(getattr(settings, g.name))]
        return ["--method", "--config", *(f"--{n.replace('_', '-')}" for n in names)]
    module: Any = importlib.import_module(f"fastzsl.{command}")
    return [f"--{f.name.replace('_', '-')}" for f in fields(module.Settings)]


def call(command: str, words: list[str], found: list[str]) -> str:
    """Run a command in this process; what it should not do goes to `found`."""
    output, errors = io.StringIO(), io.StringIO()
    shown = f"{command} {' '.join(map(repr, words))}"[:500]

    def hang(*_: object) -> None:
        raise TimeoutError("hangs")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SLOWEST)
    code: Any = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            importlib.import_module(f"fastzsl.{command}").main(words)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        found.append(f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}: {shown}"[:900])
        return "fault"
    finally:
        signal.alarm(0)
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    if code not in (0, 1, 2):
        found.append(f"exit code {code}: {shown}")
    if "Traceback" in errors.getvalue():
        found.append(f"traceback on stderr: {shown}")
    if code == 2 and sum(line.startswith("fastzsl: error") for line in lines) != 1:
        found.append(f"{len(lines)} lines of error: {shown}: {lines[:3]}")
    return f"exit {code}"


def kills(rng: random.Random, folder: Path, root: Path, deadline: float, found: list[str]) -> Counter[str]:
    """SIGKILL at a random moment, resumed until the end: the same bits as a training that was never stopped."""
    tried: Counter[str] = Counter()
    whole: dict[str, tuple[bytes, float]] = {}
    while time.monotonic() < deadline:
        method = rng.choice(METHODS)
        if method not in whole:
            out = folder / f"whole-{method}"
            began = time.monotonic()
            if spawn(method, root, out).wait():
                found.append(f"{method}: the training that was not stopped failed")
                continue
            whole[method] = ((out / "model.safetensors").read_bytes(), time.monotonic() - began)
        expected, seconds = whole[method]
        out = folder / f"killed-{rng.randrange(10**9)}"
        process = spawn(method, root, out)
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if spawn(method, root, out, "--resume").wait():
            found.append(f"{method}: resuming failed in {out.name}")
        elif (out / "model.safetensors").read_bytes() != expected:
            found.append(f"{method}: resumed to other weights")
        tried[method] += 1
    return tried


def spawn(method: str, root: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    epochs = ["--epochs", "15"] if method in ("attended", "pooled") else []
    words = [*small(root, out), "--method", method, "--checkpoint-steps", "5", *epochs, *flags]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fastzsl.train", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
