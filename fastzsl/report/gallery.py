"""Figure 2a: the attention of the true class and of three other classes, as small images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.method import Model
from fastzsl.protocol.attention import attention_of, attribute_attention_of
from fastzsl.protocol.metrics import TestScores
from fastzsl.report.heatmap import heatmap_overlay, upsample

EDGE = 176
"""Longest side in pixels of an image of the gallery."""
DPI = 110


@dataclass(frozen=True)
class Tile:
    """One small image.

    Attributes:
        caption: the class whose attention it shows, or another description.
        kind: "image", "true", "negative" or "attribute".
        image: RGB.
    """

    caption: str
    kind: str
    image: Image.Image

    @property
    def uri(self) -> str:
        """As a data URI, so that the page needs no other file."""
        file = io.BytesIO()
        self.image.save(file, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Exhibit:
    """An image of an unseen class with the attention of its own and of three other classes.

    Attributes:
        true: name of the class.
        verdict: the class that the model predicts among the unseen classes.
        right: whether the prediction is right.
        tiles: the image, the true class's attention, three negatives' attention, and that of the true class's most
            telling attributes where the model has attention of single attributes.
        place: "best", "median" or "worst" of the data set's images, ordered by `rank`.
        rank: of the true class among the candidates, 1 if it has the highest score.
        candidates: number of classes to choose from.
    """

    true: str
    verdict: str
    right: bool
    tiles: list[Tile]
    place: str
    rank: int
    candidates: int


def gallery(
    model: Model,
    data: ZeroShotDataset,
    scores: TestScores,
    count: int = 6,
    negatives: int = 3,
    attributes: int = 3,
) -> list[Exhibit]:
    """Exhibits for `count` images of unseen classes: a third each from the best, the middle and the worst of all,
    ordered by the rank of the true class. The three other classes are those with the highest scores. Images of seen
    classes are shown if no unseen class has images. Where the model has attention of single attributes, so are those of
    the class's attributes that lie farthest above the mean class.

    Attention is scaled up bilinearly from the regions' grid to the image's size, as in the paper. Empty
    where the data set has no images, or the model no attention.
    """
    if data.images is None:
        return []
    images, classes = data.test_unseen, data.unseen
    if not len(images):
        images, classes = data.test_seen, data.seen
    rows = scores.conventional_rows if len(data.test_unseen) else scores.seen_scores[:, data.seen]
    labels = torch.searchsorted(classes, data.labels[images])
    ranks, chosen = _ranks(rows, labels), best_median_worst(rows, labels, count)
    spread = torch.tensor([place for places in chosen.values() for place in places])
    positions = [name for name, places in chosen.items() for _ in places]
    picked = images[spread]
    attention = attention_of(model, data, picked, torch.arange(data.num_classes))
    if attention is None or round(attention.shape[2] ** 0.5) ** 2 != attention.shape[2]:
        return []
    of_attributes = attribute_attention_of(model, data, picked) if data.attribute_names else None
    telling = _telling_attributes(data.class_embeddings)
    exhibits = []
    for row, (place, index) in enumerate(zip(spread.tolist(), picked.tolist())):
        source, label = int(data.image_ids[index]), int(data.labels[index])
        image, mask = data.images.image(source), data.images.mask(source)
        order = classes[rows[place].argsort(descending=True)].tolist()
        others = [c for c in order if c != label][:negatives]
        tiles = [Tile("image", "image", _shrink(image))]
        tiles += [
            Tile(
                data.class_names[c],
                "true" if c == label else "negative",
                overlay(image, attention[row, c], mask),
            )
            for c in (label, *others)
        ]
        if of_attributes is not None:
            tiles += [
                Tile(data.attribute_names[a], "attribute", overlay(image, of_attributes[row, a], mask))
                for a in telling[label][:attributes]
            ]
        exhibits.append(
            Exhibit(
                data.class_names[label],
                data.class_names[order[0]],
                order[0] == label,
                tiles,
                positions[row],
                int(ranks[place]),
                len(classes),
            )
        )
    return exhibits


def best_median_worst(scores: Tensor, labels: Tensor, count: int) -> dict[str, list[int]]:
    """Rows of images to show, so that failures are shown like successes.

    Args:
        scores: (N, C) of the images.
        labels: (N,) column of each image's class.
        count: images to show; fewer if there are fewer, and at least one.

    Returns:
        "best", "median" and "worst" -> rows, ordered by the rank of the image's class, and among equal ranks by the
        lead of its score over the highest other one. The rows of a group are of different classes where possible.
    """
    own = scores.gather(1, labels[:, None])[:, 0]
    lead = own - scores.scatter(1, labels[:, None], -torch.inf).amax(1)
    by_lead = lead.argsort(descending=True, stable=True)
    order = by_lead[_ranks(scores, labels)[by_lead].argsort(stable=True)].tolist()
    middle = len(order) // 2
    from_middle = sorted(range(len(order)), key=lambda i: abs(i - middle))
    groups = {"best": order, "median": [order[i] for i in from_middle], "worst": order[::-1]}
    shown: dict[str, list[int]] = {name: [] for name in groups}
    used: set[int] = set()
    for turn in range(min(count, len(order))):
        name = ("best", "worst", "median")[turn % 3]
        known = {int(labels[row]) for row in shown[name]}
        free = [row for row in groups[name] if row not in used]
        row = next((row for row in free if int(labels[row]) not in known), free[0])
        shown[name].append(row)
        used.add(row)
    return shown


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank (N,) of each image's class, 1 if no other class has a higher score."""
    return 1 + (scores > scores.gather(1, labels[:, None])).sum(1)


def _telling_attributes(embeddings: Tensor) -> list[list[int]]:
    """For each class its attributes that lie above the mean class, those farthest above first in units of their
    standard deviation."""
    above = (embeddings - embeddings.mean(0)) / embeddings.std(0).clamp_min(1e-12)
    order = above.argsort(1, descending=True).tolist()
    return [[a for a in places if above[c, a] > 0] for c, places in enumerate(order)]


def overlay(image: Image.Image, attention: Tensor, mask: np.ndarray | None) -> Image.Image:
    """A small copy of the image overlaid with the attention; the object is outlined in white if it is known."""
    small = _shrink(image)
    blended = heatmap_overlay(small, torch.from_numpy(upsample(attention, small.height, small.width)))
    if mask is None:
        return blended
    inside = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(small.size)) > 127
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
    pixels = np.array(blended)
    pixels[inside & ~core] = 255
    return Image.fromarray(pixels)


def _shrink(image: Image.Image) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((EDGE, EDGE))
    return small


def save_gallery(exhibits: list[Exhibit], path: Path, title: str) -> None:
    """The gallery as one PNG, with one row for each image.

    Tiles are put on the figure as pixels. A grid of axes with a layout took most of the report's time.
    """
    columns = max(len(e.tiles) for e in exhibits)
    width, height, top = EDGE + 14, EDGE + 26, 34
    sheet = width * columns, height * len(exhibits) + top
    figure = plt.figure(figsize=(sheet[0] / DPI, sheet[1] / DPI), dpi=DPI)
    for row, exhibit in enumerate(exhibits):
        for column, tile in enumerate(exhibit.tiles):
            left, bottom = (
                column * width + (width - tile.image.width) // 2,
                sheet[1] - top - (row + 1) * height,
            )
            figure.figimage(np.asarray(tile.image), left, bottom)
            colour = {"true": "#2a7a4b", "negative": "#444444"}.get(tile.kind, "black")
            place = (column + 0.5) * width / sheet[0], (bottom + tile.image.height + 4) / sheet[1]
            figure.text(*place, _cut(tile.caption), fontsize=8, color=colour, ha="center", va="bottom")
    figure.text(0.5, 1 - top / 2 / sheet[1], _cut(title, 100), fontsize=10, ha="center", va="center")
    figure.savefig(path)
    plt.close(figure)


def _cut(text: str, length: int = 28) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
