"""A method in a user's own file trains, is tuned, evaluated, predicted with, and stands in the table of all methods."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.methods import catalogue

METHOD = Path(__file__).parents[2] / "examples" / "nearest_prototype.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine classes of six small images, each class a colour."""
    rng = np.random.default_rng(0)
    rows = [["class", "split", "red", "green", "blue"]]
    for c in range(9):
        colour = rng.random(3)
        folder = tmp_path / "data" / "images" / f"c{c}"
        folder.mkdir(parents=True)
        for i in range(6):
            pixels = 255 * colour + rng.normal(0, 20, (32, 32, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append([f"c{c}", "unseen" if c > 5 else "seen", *(f"{v:.3f}" for v in colour)])
    with open(tmp_path / "data" / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "data"


def run(command: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"fastzsl.{command}", *map(str, arguments)],
        env=os.environ | {"FASTZSL_METHODS": str(METHOD), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_it_is_trained_tuned_evaluated_and_predicted_with(root: Path, tmp_path: Path) -> None:
    data = ("--dataset", "folder", "--root", root)
    trained, tuned, table = tmp_path / "run", tmp_path / "tune", tmp_path / "table"
    run("train", "--method", "nearest-prototype", *data, "--out", trained, "--gamma-folds", 1)
    kept = json.loads((trained / "results.json").read_text())
    assert json.loads(run("eval", trained, "--json")) == {k: kept[k] for k in kept if len(k) < 6}
    assert kept["T1"] > 1 / 3, "chance"
    image = root / "images" / "c7" / "0.png"
    found = json.loads(run("predict", trained, image, "--classes", "unseen", "--json"))
    assert {row["class"] for row in found["images"][0]["predictions"]} == {"c6", "c7", "c8"}
    run("tune", "--method", "nearest-prototype", *data, "--out", tuned, "--folds", 2, "--workers", 2)
    assert len((tuned / "trials.csv").read_text().splitlines()) == 5
    run("train", "--config", tuned / "config.yaml", "--out", tmp_path / "again", "--gamma-folds", 1)
    run(
        "reproduce", "--datasets", "folder", "--root", root, "--methods", "nearest-prototype", "--out", table,
        "--seeds", 1, "--no-sweep", "--set", "epochs=1", "gamma_folds=1",
    )  # fmt: skip
    assert "Nearest prototype" in (table / "methods-folder.md").read_text()


def test_a_file_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    for item in (tmp_path / "broken.py", tmp_path / "absent.py", "no_such_module"):
        monkeypatch.setenv("FASTZSL_METHODS", str(item))
        with pytest.raises(UserError, match=r"FASTZSL_METHODS: .* cannot be imported"):
            catalogue.find_method("eszsl")


def test_a_run_of_a_method_that_is_not_here_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTZSL_METHODS", raising=False)
    with pytest.raises(UserError, match=r"there is no closest.*known: .*eszsl"):
        catalogue.find_method("closest")
