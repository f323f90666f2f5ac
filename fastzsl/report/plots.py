"""Curves of the experiments, as matplotlib figures that are readable in print and on a phone."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.protocol.metrics import TestScores, bias_of, generalised, per_class_accuracy, seen_unseen_curve

matplotlib.use("Agg")
warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font lacks
matplotlib.rcParams["text.parse_math"] = False  # names come from users: a dollar sign starts no formula

SEEN, UNSEEN, BOTH, GREY = "#47729e", "#d1603d", "#3b7d5a", "#9aa3ad"
SIZE = (5.4, 3.5)
NOT_LOSSES = ("step", "lr", "epoch", "data_wait")


def svg(figure: Figure) -> str:
    """The figure as SVG text; the same data give the same bytes. Closes the figure."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fastzsl"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()


def loss_curves(metrics: Path) -> Figure | None:
    """Loss terms over the steps, from a run's metrics.jsonl; None where there is none."""
    if not metrics.exists():
        return None
    records = _records(metrics)
    names = [n for n in dict.fromkeys(n for r in records for n in r) if n not in NOT_LOSSES]
    if len(names) > 1:
        names = [n for n in names if n != "loss"]  # the sum of the others
    if not names:
        return None
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    steps = np.array([r["step"] for r in records])
    for name, colour in zip(names, itertools.cycle((SEEN, UNSEEN, BOTH, GREY))):
        values = np.array([r.get(name, np.nan) for r in records], dtype=float)
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
        axes.plot(steps, _smooth(values), color=colour, label=name.replace("_", " "))
    axes.set(xlabel="training step", ylabel="loss, before its weight")
    if all(np.nanmin([r.get(n, np.nan) for r in records]) > 0 for n in names):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # its own would write formulas
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False)
    return _clean(figure)


def _records(metrics: Path) -> list[dict[str, float]]:
    """The complete lines of metrics.jsonl."""
    records = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append({k: v for k, v in record.items() if isinstance(v, int | float)})
    return records


def _smooth(values: np.ndarray) -> np.ndarray:
    width = max(1, len(values) // 40)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def gamma_curve(scores: TestScores, gamma: float) -> Figure:
    """U, S and H for every gamma, the chosen one marked."""
    curve = seen_unseen_curve(scores)
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    breaks = curve.breaks.numpy()
    low, high = np.quantile(breaks, [0.02, 0.98]) if len(breaks) else (-1.0, 1.0)
    margin = 0.05 * (high - low) + 1e-6
    low, high = min(low, gamma) - margin, max(high, gamma) + margin
    edges = np.concatenate(
        [[min(low, breaks.min(initial=low))], breaks, [max(high, breaks.max(initial=high))]]
    )
    for values, name, colour in (
        (curve.S, "seen classes (S)", SEEN),
        (curve.U, "unseen classes (U)", UNSEEN),
        (curve.harmonic, "harmonic mean (H)", BOTH),
    ):
        axes.stairs(100 * values.numpy(), edges, baseline=None, color=colour, label=name, linewidth=1.8)
    axes.axvline(gamma, color="black", linewidth=0.9, linestyle="--")
    axes.set(
        xlim=(low, high), ylim=(0, 100), xlabel="gamma, added to the scores of unseen classes",
        ylabel="accuracy per class (%)", title=f"dashed: the chosen gamma, {gamma:.3f}",
    )  # fmt: skip
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    return _clean(figure)


def seen_unseen_figure(scores: TestScores, gamma: float) -> Figure:
    """S over U for all gamma; the area under it is AUSUC."""
    curve = seen_unseen_curve(scores)
    U, S = generalised(scores, gamma)
    U0, S0 = generalised(scores, 0.0)
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.fill_between(100 * curve.U.numpy(), 100 * curve.S.numpy(), color=BOTH, alpha=0.12)
    axes.plot(100 * curve.U.numpy(), 100 * curve.S.numpy(), color=BOTH)
    for u, s, mark, name in ((U0, S0, "o", "gamma = 0"), (U, S, "s", f"gamma = {gamma:.3f}, chosen")):
        axes.plot(100 * u, 100 * s, mark, color="black" if mark == "s" else GREY, label=name)
    axes.set(
        xlim=(0, 100), ylim=(0, 100), xlabel="accuracy on unseen classes, U (%)",
        ylabel="accuracy on seen classes, S (%)", title=f"area AUSUC {curve.area:.3f}",
    )  # fmt: skip
    axes.legend(frameon=False)
    return _clean(figure)


def class_accuracy(data: ZeroShotDataset, scores: TestScores, gamma: float) -> Figure:
    """Accuracy among all classes of every class with test images, unseen ones first."""
    bias = bias_of(scores, gamma)
    names: list[str] = []
    tested = torch.cat([scores.unseen_labels, scores.seen_labels]).unique()
    count = len(tested)
    figure, axes = plt.subplots(figsize=(SIZE[0], 1.0 + 0.17 * count), layout="constrained")
    for name, colour, classes, found, labels in (
        ("unseen", UNSEEN, data.unseen, scores.unseen_scores, scores.unseen_labels),
        ("seen", SEEN, data.seen, scores.seen_scores, scores.seen_labels),
    ):
        classes = classes[torch.isin(classes, tested)]
        if not len(classes):
            continue
        accuracy = per_class_accuracy((found.double() + bias).argmax(1), labels, classes).nan_to_num()
        order = accuracy.argsort(descending=True)
        places = range(len(names), len(names) + len(classes))
        axes.barh(places, 100 * accuracy[order].numpy(), color=colour, label=f"{name} classes")
        names += [_short(data.class_names[i]) for i in classes[order].tolist()]
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set(xlim=(0, 100), ylim=(count - 0.4, -0.6), xlabel="recognised among all classes (%)")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return _clean(figure)


def confusion(data: ZeroShotDataset, scores: TestScores) -> Figure:
    """Confusion matrix of the unseen classes among themselves, the conventional setting."""
    position = torch.full((data.num_classes,), -1, dtype=torch.long)
    position[scores.unseen] = torch.arange(len(scores.unseen))
    predicted = scores.unseen_scores[:, scores.unseen].argmax(1)
    true = position[scores.unseen_labels]
    count = len(scores.unseen)
    matrix = torch.zeros(count, count).index_put_((true, predicted), torch.ones(len(true)), accumulate=True)
    share = 100 * matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    side = max(3.6, 1.6 + 0.32 * min(count, 40))
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    names = [_short(data.class_names[i]) for i in scores.unseen.tolist()]
    size = 8 if count <= 25 else 5
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    if count <= 15:
        for i in range(count):
            for j in range(count):
                value = float(share[i, j])
                if value >= 0.5:
                    colour = "white" if value > 55 else "black"
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set(xlabel="taken for", ylabel="true class")
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class's images")
    return figure


def bars(title: str, methods: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """Methods side by side, with a dot for each repetition; None for fewer than two methods.

    Args:
        title: above the axes.
        methods: label -> setting -> accuracy of every repetition.
    """
    if len(methods) < 2:
        return None
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    settings = list(next(iter(methods.values())))
    colours = plt.get_cmap("viridis")(np.linspace(0.15, 0.85, len(methods)))
    width = 0.8 / len(methods)
    for i, (label, own) in enumerate(methods.items()):
        places = np.arange(len(settings)) + (i - (len(methods) - 1) / 2) * width
        means, deviations = np.array([_mean_and_sd(own[s]) for s in settings]).T
        axes.bar(places, 100 * means, 0.92 * width, label=label, color=colours[i])
        axes.errorbar(places, 100 * means, 100 * deviations, fmt="none", ecolor="black", capsize=2)
        for place, setting in zip(places, settings):
            axes.plot([place] * len(own[setting]), 100 * np.array(own[setting]), ".", color="black", ms=3)
    axes.set_xticks(range(len(settings)), settings)
    axes.set(ylabel="accuracy per class (%)", ylim=(0, 100), title=title)
    figure.legend(frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    return _clean(figure)


def ranking(title: str, methods: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """Many methods below each other, the best of the first setting on top; None for fewer than two methods.

    Args:
        title: above the axes.
        methods: label -> setting -> accuracy of every repetition, two settings.
    """
    if len(methods) < 2:
        return None
    settings = list(next(iter(methods.values())))
    labels = sorted(methods, key=lambda label: _mean_and_sd(methods[label][settings[0]])[0])
    figure, axes = plt.subplots(figsize=(SIZE[0], 1.2 + 0.34 * len(labels)), layout="constrained")
    places = np.arange(len(labels))
    for setting, colour, shift in zip(settings, (UNSEEN, BOTH), (0.2, -0.2)):
        means, deviations = np.array([_mean_and_sd(methods[label][setting]) for label in labels]).T
        axes.barh(places + shift, 100 * means, 0.38, label=setting, color=colour)
        if any(len(methods[label][setting]) > 1 for label in labels):
            axes.errorbar(
                100 * means, places + shift, xerr=100 * deviations, fmt="none", ecolor="black", capsize=2
            )
    axes.set_yticks(places, labels, fontsize=8)
    axes.set(xlabel="accuracy per class (%)", xlim=(0, 100), title=title)
    axes.legend(frameon=False, loc="lower right")
    return _clean(figure)


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def sweep(rows: Mapping[str, Sequence[tuple[float, float, float]]], chosen: Mapping[str, float]) -> Figure:
    """H on held-out seen classes against alpha and eta.

    Args:
        rows: setting -> (value, mean H, standard deviation over the folds).
        chosen: setting -> the value in use.
    """
    figure, panels = plt.subplots(
        1, len(rows), figsize=SIZE, sharey=True, layout="constrained", squeeze=False
    )
    for axes, (name, points) in zip(panels[0], rows.items()):
        places = range(len(points))
        axes.errorbar(
            places, [100 * h for _, h, _ in points], [100 * np.nan_to_num(sd) for _, _, sd in points],
            marker="o", color=BOTH, capsize=3,
        )  # fmt: skip
        axes.set_xticks(places, [f"{v:g}" for v, _, _ in points])
        for place, (value, h, _) in enumerate(points):
            if value == chosen[name]:
                axes.plot(place, 100 * h, "s", color="black", markersize=8, label="in use")
        axes.set_xlabel(name)
        axes.legend(frameon=False, fontsize=8)
    panels[0][0].set_ylabel("H on held-out seen classes (%)")
    return _clean(figure)


def distractor_curve(points: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """T1 over the number of distractor objects.

    Args:
        points: label of a method -> number of distractors -> T1 of each seed.
    """
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    for (label, own), colour in zip(points.items(), (BOTH, UNSEEN, SEEN, GREY)):
        counts = sorted(own)
        means, deviations = np.array([_mean_and_sd(own[n]) for n in counts]).T
        axes.errorbar(counts, 100 * means, 100 * deviations, marker="o", color=colour, label=label, capsize=3)
    axes.set_xticks(sorted({n for own in points.values() for n in own}))
    axes.set(xlabel="distractor objects in each image", ylabel="T1, unseen classes (%)", ylim=(0, 100))
    axes.legend(frameon=False)
    return _clean(figure)


def _clean(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _short(name: str, length: int = 26) -> str:
    """Class names without characters that matplotlib reads as mathematics; long names are cut."""
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= length else plain[: length - 1] + "…"
