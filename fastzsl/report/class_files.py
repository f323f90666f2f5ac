"""Predictions, accuracy per class and confusions of a run's test images, as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.files.atomic import write_bytes_atomically
from fastzsl.protocol.metrics import TestScores, bias_of


def write_class_files(folder: Path, data: ZeroShotDataset, scores: TestScores, gamma: float) -> None:
    """predictions.csv, accuracy.csv and confusion.csv.

    predictions.csv has a row for each test image: its class, the class predicted among all classes with `gamma` and,
    for an image of an unseen class, the one predicted among the unseen classes alone. accuracy.csv has a row for each
    class, confusion.csv one for each pair of classes that occurs among all classes.

    Args:
        folder: of the run.
        data: with the test images that `scores` belong to.
        scores: of the test images.
        gamma: of the run.
    """
    parts = [
        ("seen", data.test_seen, scores.seen_scores, scores.seen_labels),
        ("unseen", data.test_unseen, scores.unseen_scores, scores.unseen_labels),
    ]
    alone = scores.conventional.tolist() if len(scores.unseen_labels) else []
    predictions: list[list[Any]] = []
    pairs: Counter[tuple[int, int]] = Counter()
    right_alone: Counter[int] = Counter()
    bias = bias_of(scores, gamma)
    for kind, indices, rows, labels in parts:
        values, found = (rows.double() + bias).max(1) if len(rows) else (torch.empty(0), torch.empty(0))
        for n, (index, label) in enumerate(zip(indices.tolist(), labels.tolist())):
            other = data.class_names[alone[n]] if kind == "unseen" else ""
            predicted = int(found[n])
            pairs[label, predicted] += 1
            right_alone[label] += kind == "unseen" and alone[n] == label
            predictions.append(
                [_name(data, index), kind, data.class_names[label], data.class_names[predicted], other,
                 f"{float(values[n]):.6g}"]
            )  # fmt: skip
    header = ["image", "kind", "class", "predicted", "predicted_among_unseen", "score"]
    _write(folder / "predictions.csv", header, predictions)
    _write(folder / "accuracy.csv", *_accuracies(data, pairs, right_alone))
    names = data.class_names
    confused = [[names[a], names[b], count, int(a == b)] for (a, b), count in sorted(pairs.items())]
    _write(folder / "confusion.csv", ["class", "predicted", "images", "right"], confused)


def _accuracies(
    data: ZeroShotDataset, pairs: Counter[tuple[int, int]], right_alone: Counter[int]
) -> tuple[list[str], list[list[Any]]]:
    """Header and rows; a class without test images has empty accuracies."""
    images: Counter[int] = Counter()
    for (label, _), count in pairs.items():
        images[label] += count
    unseen = set(data.unseen.tolist())
    rows: list[list[Any]] = []
    for label in sorted(unseen | set(data.seen.tolist())):
        count, is_unseen = images[label], label in unseen
        among_all = f"{pairs[label, label] / count:.6g}" if count else ""
        among_unseen = f"{right_alone[label] / count:.6g}" if count and is_unseen else ""
        kind = "unseen" if is_unseen else "seen"
        rows.append([data.class_names[label], kind, count, among_all, among_unseen])
    return ["class", "kind", "images", "accuracy", "accuracy_among_unseen"], rows


def _name(data: ZeroShotDataset, index: int) -> str:
    source = int(data.image_ids[index])
    return data.images.describe(source) if data.images is not None else f"image {source}"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    # Names of image files may be in any encoding; their bytes are written as they are.
    write_bytes_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
