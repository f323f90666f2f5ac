"""Figures of a run, drawn with matplotlib without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.protocol.metrics import TestScores, generalised, harmonic_mean, per_class_accuracy
from fastzsl.protocol.scoring import read_inputs

SEEN_COLOUR, UNSEEN_COLOUR = "#7f8fa9", "#d1603d"


def upsample(attention: Tensor, height: int, width: int) -> np.ndarray:
    """Attention (T,) of a square grid, bilinear to (height, width), scaled to a maximum of 1."""
    side = round(len(attention) ** 0.5)
    grid = attention.float().cpu().view(1, 1, side, side)
    fine = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)[0, 0]
    return (fine / fine.max().clamp_min(1e-12)).numpy()


def overlay(axes: Axes, picture: Image.Image, attention: Tensor, mask: np.ndarray | None = None) -> None:
    """A picture with the attention laid over it, and the outline of the object where it is known."""
    heat = upsample(attention, picture.height, picture.width)
    axes.imshow(picture)
    axes.imshow(heat, cmap="inferno", alpha=0.25 + 0.5 * heat, vmin=0, vmax=1)
    if mask is not None:
        axes.contour(mask.astype(float), levels=[0.5], colors="white", linewidths=1.2)
    axes.set_xticks([])
    axes.set_yticks([])


@torch.no_grad()
def attention_figure(
    model: AttendedAutoencoder, data: ZeroShotDataset, scores: TestScores, path: Path, count: int = 6
) -> None:
    """The true class's attention over pictures of `count` unseen classes, beside the pictures."""
    if data.images is None:
        return
    spread = torch.linspace(0, len(data.test_unseen) - 1, count).round().long()
    picked = data.test_unseen[spread]
    device = next(model.parameters()).device
    _, attention = model.attend(read_inputs(model, data, picked).to(device), data.class_embeddings.to(device))
    conventional = data.unseen[scores.unseen_scores[spread][:, data.unseen].argmax(1)]
    figure, rows = plt.subplots(2, count, figsize=(2.4 * count, 5.6), layout="constrained")
    for column, index in enumerate(picked.tolist()):
        source, label = int(data.picture_ids[index]), int(data.labels[index])
        picture, mask = data.images.image(source), data.images.mask(source)
        top, bottom = rows[:, column]
        top.imshow(picture)
        top.axis("off")
        top.set_title(data.class_names[label], fontsize=9)
        overlay(bottom, picture, attention[column, label], mask)
        guess = int(conventional[column])
        right = guess == label
        bottom.set_xlabel(
            "recognised" if right else f"taken for {data.class_names[guess]}",
            fontsize=8, color="#2a7a4b" if right else "#b03020",
        )  # fmt: skip
    figure.suptitle(f"{data.name}: pictures of unseen classes, and where the attention of their class looks")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def accuracy_figure(data: ZeroShotDataset, scores: TestScores, gamma: float, path: Path) -> None:
    """Generalised accuracy of every class, seen and unseen, at the chosen gamma."""
    bias = torch.zeros(data.num_classes)
    bias[data.unseen] = gamma
    groups = [
        ("unseen", UNSEEN_COLOUR, data.unseen, scores.unseen_scores, scores.unseen_labels),
        ("seen", SEEN_COLOUR, data.seen, scores.seen_scores, scores.seen_labels),
    ]
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.19 * data.num_classes), layout="constrained")
    names: list[str] = []
    for name, colour, classes, found, labels in groups:
        accuracy = per_class_accuracy((found + bias).argmax(1), labels, classes).nan_to_num()
        order = accuracy.argsort(descending=True)
        places = range(len(names), len(names) + len(classes))
        mean = float(accuracy.mean())
        axes.barh(places, accuracy[order].numpy(), color=colour, label=f"{name} classes, mean {mean:.3f}")
        names += [data.class_names[i] for i in classes[order].tolist()]
    U, S = generalised(scores, gamma)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("share of the class's test pictures recognised among all classes")
    axes.set_title(f"{data.name}: U {U:.3f}, S {S:.3f}, H {harmonic_mean(S, U):.3f} at gamma {gamma:.3f}")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0 + 1.6 / (6 + data.num_classes)), ncols=2, frameon=False
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
