"""The report in a real browser: fits desktop and phone, prints nothing to the console, asks for nothing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, visit
from PIL import Image
from small_problem import SETTINGS, small_problem

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.method import new_model
from fastzsl.protocol.attention import Localisation
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.scoring import test_scores
from fastzsl.report.run import write_run_report
from fastzsl.training.run import RunFolder

HOSTILE = '<script>console.error("run")</script><img src="http://example.invalid/x.png"> $x^2_{ & "quoted"'

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")


class DrawnImages:
    """Noise with a square as the object."""

    def __len__(self) -> int:
        return 10_000

    def image(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 255, (60, 90, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((60, 90), dtype=bool)
        mask[20:40, 30:60] = True
        return mask

    def describe(self, index: int) -> str:
        return "noise"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """report.html of an untrained model on a data set whose class names are hostile."""
    data: ZeroShotDataset = small_problem()
    names = [HOSTILE, "x" * 300, *data.class_names[2:-1], HOSTILE * 2]
    data = dataclasses.replace(data, class_names=tuple(names), images=DrawnImages(), name=HOSTILE[:20])
    model = new_model(SETTINGS.method, 24, data.embedding_dim, seed=0)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.metrics.write_text(
        "".join(f'{{"step": {i}, "classification": {2 / i}, "loss": {2 / i}}}\n' for i in range(1, 50))
    )
    scores = test_scores(model, data)
    return write_run_report(
        run, model, data, SETTINGS, scores, evaluate(scores, 0.1), Localisation(0.5, 0.1),
        {"gamma_chosen_on": "nothing"}, {"versions": {"torch": torch.__version__}},
    )  # fmt: skip


def test_the_file_holds_everything_and_names_nothing_outside(report: Path) -> None:
    text = report.read_text()
    addresses = re.findall(r'(?:src|href|action|data)="([^"]*)"|url\(([^)]*)\)|@import', text)
    assert len(addresses) > 20
    assert all((a or b).startswith("data:") for a, b in addresses), [a for a, b in addresses][:5]
    assert "<script" not in text, "class names are text, not markup"
    assert "&lt;script&gt;" in text
    for word in ("T1", "H", "gamma", "AUSUC", "temperature", "torch", "Which unseen class", "nothing"):
        assert word in text


@needs_browser
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_it_fits_prints_nothing_and_asks_for_nothing(report: Path, tmp_path: Path, width: int) -> None:
    seen = visit(report, width, tmp_path)
    assert seen.console == []
    assert seen.requests == []
    assert seen.broken == 0
    assert seen.width <= width, "the page is wider than its window"
    image = np.asarray(Image.open(seen.png).convert("L"))
    assert image.shape[1] >= width
    assert image.std() > 10, "the page is blank"


@needs_browser
def test_the_browser_test_sees_what_it_looks_for(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!DOCTYPE html><div style="width:3000px">wide</div><img src="http://example.invalid/x.png">'
        '<script>console.error("loud")</script>'
    )
    seen = visit(page, 390, tmp_path)
    assert any("loud" in line for line in seen.console)
    assert "http://example.invalid/x.png" in seen.requests
    assert seen.broken == 1
    assert seen.width >= 3000
