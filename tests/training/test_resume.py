"""A run killed with SIGKILL at any moment and resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SETTINGS = [
    "--dataset", "folder", "--epochs", "25", "--batch-size", "8", "--hidden", "32", "--checkpoint-steps", "3",
    "--gamma-folds", "2",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight classes of six images each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    rows = [["class", "split", "a", "b", "c"]]
    for i in range(8):
        folder = root / "images" / f"class{i}"
        folder.mkdir(parents=True)
        for k in range(6):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            pixels[..., i % 3] //= 1 + i // 3
            Image.fromarray(pixels).save(folder / f"{k}.png")
        rows.append([f"class{i}", "unseen" if i > 5 else "seen", str(i & 1), str(i >> 1 & 1), str(i >> 2)])
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def start(root: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "fastzsl.train", *SETTINGS, "--root", str(root), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def steps(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> bool:
    """SIGKILL as soon as `moment` comes; False if the process ended before."""
    while process.poll() is None:
        if moment():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.002)
    return False


def test_killed_at_several_moments_and_resumed(root: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(root, whole))
    total = steps(whole)
    assert total == 25 * 4  # 30 training images in batches of 8

    moments: list[Callable[[], bool]] = [
        lambda: steps(killed) >= 1,
        lambda: steps(killed) >= 20,
        lambda: steps(killed) >= 61 and (killed / ".checkpoint.pt.partial").exists(),
        lambda: (killed / "model.safetensors").exists(),  # while gamma is chosen
    ]
    survived = []
    for i, moment in enumerate(moments):
        resume = ["--resume"] if i else []
        survived.append(kill_when(start(root, killed, *resume), moment))
        if not i:
            (killed / "model.safetensors").unlink(missing_ok=True)
    assert sum(survived) >= 3, survived  # the moment of a half-written file may be missed, the others not
    finish(start(root, killed, "--resume"))

    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    results = [json.loads((out / "results.json").read_text()) for out in (whole, killed)]
    assert results[0] == results[1]
    logs = [[json.loads(line) for line in (out / "metrics.jsonl").open()] for out in (whole, killed)]
    for log in logs:
        for line in log:
            line.pop("data_wait", None)  # a time, not a figure of the training
    assert logs[0] == logs[1]
    assert not list(killed.glob(".*partial"))


def test_eval_repeats_the_figures_to_the_last_digit(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    finish(start(root, out))
    found = subprocess.run(
        [sys.executable, "-P", "-m", "fastzsl.eval", str(out), "--json"],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    printed = json.loads(found.stdout)
    kept = json.loads((out / "results.json").read_text())
    assert set(printed) == {"T1", "U", "S", "H", "gamma", "U0", "S0", "H0", "AUSUC"}
    assert printed == {name: kept[name] for name in printed}
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "classes.csv",
        "attention.png",
        "accuracy.png",
    ):
        assert (out / name).stat().st_size > 0, name
    assert list(out.glob("events.out.tfevents.*"))
