"""Two gloo processes train to the same weights as one process on the same batches, also after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fastzsl.train import main

TIMEOUT = 120
PARTIAL_LAST_BATCH = 6  # 25 training images: the last batch has one, so one of two processes has none
SETTINGS = [
    "--dataset", "folder", "--backbone", "timm/test_resnet", "--backbone-weights", "random", "--hidden", "16",
    "--batch-size", str(PARTIAL_LAST_BATCH), "--epochs", "8", "--checkpoint-steps", "2",
    "--accelerator", "cpu", "--backend", "eager",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
        reason="this PyTorch has no gloo",
    ),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five seen classes, of which 25 images are for training, and two unseen ones."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    rows = [["class", "split", "a", "b", "c"]]
    for label in range(7):
        folder = root / "images" / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        split = "unseen" if label > 4 else "seen"
        rows.append([f"class{label}", split, str(label & 1), str(label >> 1 & 1), str(label >> 2)])
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _start_two(root: Path, out: Path, *flags: str) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--master-port", str(_free_port()), "-m"]
    return _start([*launcher, "fastzsl.train", *_flags(root, out), *flags])


def _start(module_and_flags: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", *module_and_flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": _loopback()}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def _flags(root: Path, out: Path) -> list[str]:
    return [*SETTINGS, "--root", str(root), "--out", str(out)]


def _loopback() -> str:
    return "lo0" if sys.platform == "darwin" else "lo"


def _finish(process: subprocess.Popen[str]) -> str:
    try:
        printed, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun passes it on to its processes
        process.wait(20)
        raise
    assert process.returncode == 0, printed
    return printed


def _difference(first: Path, second: Path) -> float:
    """Largest relative difference of a tensor, in the Frobenius norm."""
    tensors, others = (load_file(out / "model.safetensors") for out in (first, second))
    assert tensors.keys() == others.keys()
    pairs = [(tensors[name].double(), others[name].double()) for name in tensors]
    return max(float((a - b).norm() / a.norm().clamp_min(1e-30)) for a, b in pairs)


def _losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-12), ("32-true", 1e-5)])
def test_two_processes_end_with_the_weights_of_one(
    root: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ["--precision", precision, "--gamma-folds", "1"]
    main([*_flags(root, one), *flags])
    printed = _finish(_start_two(root, two, *flags))
    assert "MEMBER: 2/2" in printed  # Fabric's own line: there were two
    assert _difference(one, two) < tolerance
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-5)
    assert len(_losses(one)) == 8 * 5
    gammas = [json.loads((out / "gamma.json").read_text())["gamma"] for out in (one, two)]
    assert gammas[0] == pytest.approx(gammas[1], abs=1e-4)


def test_a_trained_backbone_is_trained_alike_by_two_processes(root: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ["--precision", "64-true", "--gamma-folds", "0", "--train-backbone", "--backbone-lr", "1e-3"]
    flags += ["--epochs", "2"]
    main([*_flags(root, one), *flags])
    _finish(_start_two(root, two, *flags))
    assert any(name.startswith("backbone.") for name in load_file(one / "model.safetensors"))
    assert _difference(one, two) < 1e-9


def test_two_processes_killed_and_resumed_end_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--gamma-folds", "0", "--epochs", "60"]
    _finish(_start_two(root, whole, *flags))
    # Started by Fabric, not torchrun, so that one signal reaches both processes.
    process = _start(["fastzsl.train", *_flags(root, killed), *flags, "--devices", "2"])
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if (killed / "metrics.jsonl").exists() and len((killed / "metrics.jsonl").read_bytes()) > 1500:
            break
        time.sleep(0.005)
    survived = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert survived, "the run ended before it could be killed"
    assert (killed / "checkpoint.pt").exists()
    assert not (killed / "model.safetensors").exists()
    _finish(_start(["fastzsl.train", *_flags(root, killed), *flags, "--devices", "2", "--resume"]))
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert _losses(killed) == _losses(whole)


def test_bad_input_ends_every_process_with_one_line(root: Path, tmp_path: Path) -> None:
    printed = _fail(_start_two(root, tmp_path / "out", "--devices", "3"))
    _said_once(
        printed, "fastzsl: error: --devices is 3 but torchrun started 2 processes here; leave --devices out"
    )
    printed = _fail(_start_two(tmp_path / "nothing", tmp_path / "out"))  # found when the processes are joined
    _said_once(printed, f"fastzsl: error: --root: no folder {tmp_path / 'nothing'}")
    printed = _fail(_start_two(root, tmp_path / "out", "--pooling", "maximal"))
    (line,) = [line for line in printed.splitlines() if line.startswith("fastzsl: error: ")]
    assert "--pooling is maximal; wanted attention or average" in line
    _said_once(printed, line)


def test_a_fault_that_only_the_second_process_meets_is_told_by_it(root: Path, tmp_path: Path) -> None:
    (root / "images" / "class0" / "1.png").write_bytes(
        b"no image"
    )  # the second process takes every second one
    command = ["torch.distributed.run", "--nproc-per-node=2", "--master-port", str(_free_port()), "-m"]
    command += [
        "fastzsl.extract",
        "--dataset",
        "folder",
        "--root",
        str(root),
        "--out",
        str(tmp_path / "f.h5"),
    ]
    command += ["--backbone", "timm/test_resnet", "--backbone-weights", "random"]
    printed = _fail(_start(command))
    lines = [line for line in printed.splitlines() if line.startswith("fastzsl: error: ")]
    assert len(lines) == 1, printed
    assert "class0/1.png: not a readable image" in lines[0]


def _fail(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0, printed
    return printed


def _said_once(printed: str, message: str) -> None:
    """By one process, and in torchrun's own report, which holds the only traceback."""
    lines = printed.splitlines()
    assert lines.count(message) == 1, printed
    assert f"  traceback : {message}" in lines, printed
    assert printed.count("Traceback (most recent call last)") == 1, printed
    assert "[rank" not in printed, printed
