"""bench/roofline.py counts what design and planner count, and bench/gpu.py runs as far as a CPU lets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastzsl.ops.planner import score_costs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def roofline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    import bench.roofline

    return bench.roofline


def test_multiply_adds_are_those_of_the_planner(roofline: ModuleType) -> None:
    for shape in roofline.SHAPES:
        costs = score_costs(*shape[1:], similarity="dot")
        for order in ("prototype", "project"):
            steps = roofline.ours_scores(shape, order)
            assert sum(step.multiply_adds for step in steps) == costs[order]
        eager = sum(step.multiply_adds for step in roofline.eager_scores(shape, "dot"))
        assert (
            eager == costs["attend"] - shape.B * shape.C * shape.m
        )  # the planner counts the last product too


def test_a_step_takes_the_longer_of_its_two_bounds(roofline: ModuleType) -> None:
    card = roofline.Card("unit", bandwidth=2.0, matmul=1.0, source="test")
    assert roofline.Step("s", multiply_adds=10, numbers=1).seconds(card, "bfloat16") == 20.0
    assert roofline.Step("s", multiply_adds=0, numbers=10).seconds(card, "bfloat16") == 10.0
    assert roofline.Step("s", multiply_adds=0, numbers=10).seconds(card, "float32") == 20.0
    assert (
        roofline.Step("s", multiply_adds=10, numbers=1).seconds(card, "float32") == 40.0
    )  # TF32, half the rate


def test_attended_features_cannot_be_faster_than_writing_them(roofline: ModuleType) -> None:
    shape, card = roofline.SHAPES[0], roofline.CARDS[1]
    written = shape.B * shape.C * shape.d * 2 / card.bandwidth
    assert roofline.seconds(roofline.ours_attention(shape), card, "bfloat16") > written
    assert roofline.seconds(roofline.ours_scores(shape, "prototype"), card, "bfloat16") < written


def test_without_a_gpu_the_benchmark_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert "PyTorch sees no GPU" in done.stderr


@pytest.mark.slow
def test_rehearsal_checks_and_times_every_rival(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    arguments = ["--rehearse", "--dtype", "float32", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "TORCH_COMPILE_DISABLE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rehearsal"] is True
    ours = [row for row in found["rows"] if row["rival"] == "ours"]
    assert {(row["op"], row["passes"]) for row in ours} == {
        (op, passes)
        for op in ("dense_attention", "scores, dot", "scores, cosine")
        for passes in ("forward", "both")
    }
    assert all(row["seconds"] is not None and not row["note"] for row in found["rows"]), done.stdout
