"""The gallery shows failures like successes: the best, the median and the worst images by rank of the true class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastzsl.report.gallery import Exhibit, Tile, best_median_worst, save_gallery


def ranks(scores: torch.Tensor, labels: torch.Tensor) -> list[int]:
    own = scores[torch.arange(len(labels)), labels]
    return [1 + int((row > value).sum()) for row, value in zip(scores, own)]


def test_best_median_and_worst_are_those_of_all_images(seed: int) -> None:
    scores, labels = torch.randn(101, 7), torch.randint(7, (101,))
    found, every = ranks(scores, labels), sorted(ranks(scores, labels))
    shown = best_median_worst(scores, labels, 6)
    assert [found[row] for row in shown["best"]] == every[:2]
    assert found[shown["worst"][0]] == every[-1]
    assert found[shown["median"][0]] == every[50]
    rows = [row for places in shown.values() for row in places]
    assert len(set(rows)) == 6
    for places in shown.values():
        assert len({int(labels[row]) for row in places}) == len(places)


def test_the_first_of_the_best_has_the_largest_lead() -> None:
    scores = torch.tensor([[2.0, 1.0], [5.0, 1.0], [1.0, 4.0]])
    shown = best_median_worst(scores, torch.tensor([0, 0, 0]), 3)
    assert shown == {"best": [1], "worst": [2], "median": [0]}


def test_few_images_are_shown_once() -> None:
    shown = best_median_worst(torch.eye(2), torch.tensor([0, 0]), 6)
    assert sorted(row for places in shown.values() for row in places) == [0, 1]


def test_the_saved_gallery_has_every_tile_pixel_by_pixel(tmp_path: Path) -> None:
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    tiles = [Tile(f"class {'x' * 99} $_{{", "true", Image.new("RGB", (90, 60), c)) for c in colours]
    save_gallery([Exhibit("a", "b", False, tiles, "worst", 2, 3)] * 2, tmp_path / "g.png", "data")
    pixels = np.asarray(Image.open(tmp_path / "g.png").convert("RGB")).reshape(-1, 3)
    for colour in colours:
        assert (pixels == colour).all(1).sum() == 2 * 90 * 60
