"""A data set of drawn images and a run trained on it; `trained` for import."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastzsl.data.formats.drawing import draw_image
from fastzsl.train import train

sys.path.insert(0, str(Path(__file__).parent))

from trained import ATTRIBUTES, run_settings


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven classes of four drawn images, two of the classes unseen."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for label in range(7):
        (root / "images" / f"class {label}").mkdir(parents=True)
        for i in range(4):
            image, _ = draw_image([(label, label, label % 4)], rng, 160)
            image.save(root / "images" / f"class {label}" / f"{i}.png")
        split = "unseen" if label > 4 else "seen"
        rows.append([f"class {label}", split, label & 1, label >> 1 & 1, label >> 2 & 1, 0.1 * label])
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["class", "split", *ATTRIBUTES], *rows])
    return root


@pytest.fixture(scope="session")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTZSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(run_settings(folder, out))
    gamma = json.loads((out / "gamma.json").read_text())
    (out / "gamma.json").write_text(json.dumps({**gamma, "gamma": 0.125}))
    return out
