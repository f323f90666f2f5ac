"""A data set trains if no unseen class has an image; figures of unseen classes are absent, and the output says so."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fastzsl
from fastzsl import eval as evaluation
from fastzsl.data.dataset import ZeroShotDataset, redraw_classes
from fastzsl.data.formats.drawing import draw_image
from fastzsl.data.formats.hdf5 import dataset_arrays, hdf5_dataset
from fastzsl.errors import UserError
from fastzsl.features.extraction import extract_features
from fastzsl.methods import METHODS
from fastzsl.methods.context import Context
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import SeenResults, evaluate_run
from fastzsl.protocol.pipeline import scores_on_held_out
from fastzsl.protocol.scoring import test_scores as score_tests
from fastzsl.train import train
from fastzsl.training.fit import fit_model
from fastzsl.training.settings import Settings
from tests.methods.planted import planted


def folder(root: Path, *, split: bool, imageless: bool) -> Path:
    """Six classes of four drawn images, and a seventh row without images."""
    rng = np.random.default_rng(0)
    rows = [["class", *(["split"] if split else []), "a", "b", "c"]]
    for label in range(7 if imageless else 6):
        if label < 6:
            (root / "images" / f"class {label}").mkdir(parents=True)
            for i in range(4):
                image, _ = draw_image([(label, label, label % 4)], rng, 64)
                image.save(root / "images" / f"class {label}" / f"{i}.png")
        kind = ["unseen" if label == 6 else "seen"] if split else []
        rows.append([f"class {label}", *kind, *(str(label >> bit & 1) for bit in range(3))])
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def settings(root: Path, out: Path) -> Settings:
    return Settings().changed(
        dataset="folder", root=root, backbone="timm/test_resnet", backbone_weights="random", hidden=8,
        epochs=2, batch_size=8, gamma_folds=2, accelerator="cpu", backend="eager", out=out,
    )  # fmt: skip


@pytest.mark.parametrize("imageless", [False, True], ids=["all seen", "a row without images"])
def test_it_trains_evaluates_predicts_and_reports(
    tmp_path: Path, imageless: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "data", split=not imageless, imageless=imageless)
    out = tmp_path / "run"
    train(settings(root, out))
    said = " ".join(capsys.readouterr().out.split())
    assert "There is no test on unseen classes, because no unseen class has an image." in said
    results = json.loads((out / "results.json").read_text())
    assert results["test_on_unseen_classes"] == "none: no unseen class has an image"
    assert not {"T1", "U", "H", "AUSUC"} & set(results)
    assert 0 <= results["S"] <= 1
    assert set(results["held_out"]) >= {"T1", "H"}
    assert "NaN" not in (out / "results.json").read_text()
    report = (out / "report.html").read_text()
    assert "There is no test on unseen classes" in report
    assert "Which unseen class is taken for which" not in report
    assert json.loads((out / "gamma.json").read_text())["folds"] == 2

    evaluation.main([str(out), "--json"])
    again = json.loads(capsys.readouterr().out)
    assert again == {name: results[name] for name in ("S", "gamma", "S0")}
    model = fastzsl.load(out)
    image = root / "images" / "class 1" / "0.png"
    found = model.predict(image, "all")[0]
    assert len(found.classes) == 6 + imageless
    beside = model.predict(image, {"new": [1, 1, 1]}, beside="seen")[0]
    assert len(beside.classes) == 7
    if imageless:
        assert model.predict(image, "unseen")[0].best == "class 6"
    else:
        with pytest.raises(UserError, match="the run has no unseen classes"):
            model.predict(image, "unseen")


def without_unseen(data: ZeroShotDataset) -> ZeroShotDataset:
    keep = data.labels < len(data.seen)
    return replace(
        data, class_names=data.class_names[: len(data.seen)], unseen=data.unseen[:0], labels=data.labels[keep],
        class_embeddings=data.class_embeddings[data.seen], image_ids=data.image_ids[keep],
        test_unseen=data.test_unseen[:0],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"), [("eszsl", {}), ("dazle", {"epochs": 2, "backend": "eager"}), ("dcn", {"epochs": 2})]
)
def test_methods_train_without_unseen_classes_and_gamma_has_its_problems(name: str, changes: dict) -> None:
    method, data = METHODS[name](**changes), without_unseen(planted(1, classes=14, unseen=4, images=8))
    model = fit_model(method, data, Context())
    found = evaluate_run(score_tests(model, data), 0.1)
    assert isinstance(found, SeenResults)
    assert 0 <= found.S == found.S0 <= 1
    problem = scores_on_held_out(data, method, Context(), ClassDraws(1))[0]
    assert len(problem.unseen) == 2  # a fifth of ten
    assert len(problem.unseen_labels) == 12  # of eight images two are test_seen


def test_a_class_without_images_is_among_the_choices_of_S_and_gets_gamma() -> None:
    data = planted(2, classes=14, unseen=4, images=8)
    data = replace(data, test_unseen=data.test_unseen[:0])
    model = fit_model(METHODS["eszsl"](), data, Context())
    scores = score_tests(model, data)
    assert scores.unseen_scores.shape == (0, 14)
    assert evaluate_run(scores, 1e6).S == 0.0
    assert evaluate_run(scores, -1e6).S >= evaluate_run(scores, 0.0).S


def test_a_file_of_features_keeps_classes_without_images(tmp_path: Path) -> None:
    from fastzsl.data.formats.folder import image_folder
    from fastzsl.features.backbones import load_backbone

    data = image_folder(folder(tmp_path / "data", split=False, imageless=True))
    assert data.unseen.tolist() == [6]
    extract_features(
        data.images, load_backbone("timm/test_resnet", "random"), tmp_path / "f.h5",
        fingerprint=data.fingerprint, weights="random", arrays=dataset_arrays(data),
    )  # fmt: skip
    again = hdf5_dataset(tmp_path / "f.h5")
    assert again.unseen.tolist() == [6]
    assert len(again.test_unseen) == 0
    assert torch.equal(again.trainval, data.trainval)


def test_other_classes_cannot_be_made_unseen_without_an_unseen_one() -> None:
    with pytest.raises(
        UserError, match=r"0 unseen classes and 0 classes without images; .* \(--class-split\)"
    ):
        redraw_classes(without_unseen(planted(3, classes=8, unseen=2, images=4)), 1)
