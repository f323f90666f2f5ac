"""What all tests share: seeded random inputs whose seed is printed, and the folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes of tests share the cores
    torch.set_num_threads(
        max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    )

DATA = Path(os.environ.get("FASTZSL_TEST_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A fresh seed, printed when the test fails; FASTZSL_TEST_SEED repeats one."""
    chosen = int(os.environ.get("FASTZSL_TEST_SEED") or int.from_bytes(os.urandom(3), "little"))
    print(f"FASTZSL_TEST_SEED={chosen}")
    torch.manual_seed(chosen)
    return chosen


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cached features; PyTorch computes them unless a test names an engine."""
    monkeypatch.setenv("FASTZSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTZSL_ENGINE", "torch")


@pytest.fixture
def caltech101() -> Path:
    """The real photographs, or a skip that says so."""
    return _data("caltech101")


@pytest.fixture
def xlsa17() -> Path:
    """The real split files, or a skip that says so."""
    return _data("xlsa17")


def _data(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder {DATA / name}: set FASTZSL_TEST_DATA to the development data")
    return (DATA / name).resolve()
