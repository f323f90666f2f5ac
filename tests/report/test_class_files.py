"""The CSV files of a run agree with its figures."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_problem import small_problem

from fastzsl.data.formats.folder import FolderImages
from fastzsl.protocol.metrics import TestScores, evaluate
from fastzsl.report.class_files import write_class_files


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_they_repeat_the_figures_and_keep_names_in_any_encoding(seed: int, tmp_path: Path) -> None:
    data = small_problem()
    paths = [Path(os.fsdecode(b"\xe9 %d.png" % i)) for i in range(len(data.labels))]
    data = replace(data, images=FolderImages(paths))
    scores = TestScores(
        torch.randn(len(data.test_seen), data.num_classes), data.labels[data.test_seen],
        torch.randn(len(data.test_unseen), data.num_classes), data.labels[data.test_unseen], data.seen, data.unseen,
    )  # fmt: skip
    write_class_files(tmp_path, data, scores, 0.7)
    results = evaluate(scores, 0.7)
    accuracy = rows(tmp_path / "accuracy.csv")
    assert [row["class"] for row in accuracy] == list(data.class_names)
    for kind, column, expected in (
        ("seen", "accuracy", results.S), ("unseen", "accuracy", results.U),
        ("unseen", "accuracy_among_unseen", results.T1),
    ):  # fmt: skip
        own = [float(row[column]) for row in accuracy if row["kind"] == kind]
        assert sum(own) / len(own) == pytest.approx(expected, abs=1e-5)
    predictions = rows(tmp_path / "predictions.csv")
    tested = torch.cat([data.test_seen, data.test_unseen]).tolist()
    assert [row["image"] for row in predictions] == [str(paths[i]) for i in tested]
    right = sum(row["class"] == row["predicted"] for row in predictions)
    confused = rows(tmp_path / "confusion.csv")
    assert sum(int(row["images"]) for row in confused) == len(tested)
    assert sum(int(row["images"]) for row in confused if row["right"] == "1") == right


def test_a_class_without_test_images_has_empty_cells(tmp_path: Path) -> None:
    data = small_problem()
    data = replace(data, test_unseen=data.test_unseen[:0])
    scores = TestScores(
        torch.randn(len(data.test_seen), data.num_classes), data.labels[data.test_seen],
        torch.empty(0, data.num_classes), data.labels[:0], data.seen, data.unseen,
    )  # fmt: skip
    write_class_files(tmp_path, data, scores, 0.0)
    last = rows(tmp_path / "accuracy.csv")[-1]
    assert (last["kind"], last["images"], last["accuracy"], last["accuracy_among_unseen"]) == (
        "unseen",
        "0",
        "",
        "",
    )
