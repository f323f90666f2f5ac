"""Prediction by a trained run agrees with evaluation, takes new classes, and names what is wrong."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from trained import ATTRIBUTES, evaluated, run_settings

import fastzsl
from fastzsl.data.find import Sources, find_dataset
from fastzsl.errors import UserError
from fastzsl.methods.attended.pooled import Pooled
from fastzsl.prediction import recogniser as predictor
from fastzsl.protocol.scoring import score_images
from fastzsl.train import train


def test_scores_are_those_of_evaluation_with_gamma_on_unseen_classes_only(run: Path) -> None:
    paths, scores, unseen = evaluated(run)
    model = fastzsl.load(run)
    found = torch.stack([p.scores for p in model.predict(paths)])
    expected = scores.clone()
    expected[:, unseen] += 0.125
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    conventional = torch.stack([p.scores for p in model.predict(paths, "unseen")])
    torch.testing.assert_close(conventional, scores[:, unseen], rtol=0, atol=1e-4)
    assert model.predict(paths[:1], "unseen")[0].classes == ("class 5", "class 6")
    assert len(model.predict(paths[0], "seen")[0].scores) == 5


def test_new_classes_from_a_table_with_other_column_order_score_as_the_own_class_of_these_attributes(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    model = fastzsl.load(run)
    table = tmp_path / "new.csv"
    own = dict(zip(model.class_names, model.own.embeddings.tolist()))
    columns = ("weight", "round", "dotted", "red")
    rows = [
        [f"like {name}", *(own[name][ATTRIBUTES.index(column)] for column in columns)]
        for name in ("class 3", "class 6")
    ]
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["class", *columns], *rows])
    plain = dict(zip(model.class_names, (model.predict(folder, "all")[0].scores - 0)))
    found = model.predict(folder, table)[0]
    assert found.classes == ("like class 3", "like class 6")
    expected = torch.stack([plain["class 3"], plain["class 6"] - 0.125])  # new classes get no gamma
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-5)
    mapping = {"like class 3": own["class 3"], "like class 6": dict(zip(ATTRIBUTES, own["class 6"]))}
    torch.testing.assert_close(model.predict(folder, mapping)[0].scores, expected, rtol=0, atol=1e-5)


def test_new_classes_are_normalised_by_the_runs_seen_classes(run: Path) -> None:
    """Not by the new classes themselves, nor by the unseen ones: one class alone has no mean and no deviation."""
    model = fastzsl.load(run)
    attributes = model.own.embeddings.double().numpy()
    seen = attributes[~model.own.unseen.numpy()]
    new = model.own.candidates({"a": [1, 0, 1, 0.7]})
    expected = (np.array([1, 0, 1, 0.7]) - seen.mean(0)) / seen.std(0)
    embedded = model.model.embed(new.embeddings)[0].double().numpy()
    np.testing.assert_allclose(embedded, expected / np.linalg.norm(expected), rtol=1e-5)


def test_a_batch_a_file_a_pillow_image_and_an_array_of_one_image_agree(run: Path, folder: Path) -> None:
    model = fastzsl.load(run)
    everything = model.predict(folder, batch_size=5)
    assert [p.image for p in everything] == [str(p) for p in predictor.list_images(folder)]
    path = Path(everything[7].image)
    image = Image.open(path).convert("RGB")
    for given in (path, str(path), image, np.asarray(image)):
        alone = model.predict(given)[0]
        torch.testing.assert_close(alone.scores, everything[7].scores, rtol=0, atol=1e-4)
        assert alone.best == everything[7].best
    top = everything[7].top(3)
    assert [score for _, score in top] == sorted(everything[7].scores.tolist(), reverse=True)[:3]


def test_images_are_taken_a_few_batches_ahead_and_not_all_at_once(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fastzsl.load(run)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    asked = 0

    def images():
        nonlocal asked
        for path in predictor.list_images(folder):
            asked += 1
            yield path

    stream = model.stream(images(), model.own.candidates(), batch_size=2)
    next(stream)
    assert asked <= 2 * (2 * 2 + 1)
    assert len(list(stream)) == 27


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("class,round,red,dotted", "a,1,1,1", "weight missing (3 attributes; the run has 4)"),
        (
            "class,round,red,doted,weight",
            "a,1,1,1,1",
            'doted is no attribute of the run; did you mean "dotted"?',
        ),
        ("class,round,red,dotted,weight,size", "a,1,1,1,1,1", "size is no attribute of the run"),
        ("class,round,red,dotted,weight,red", "a,1,1,1,1,1", '2 columns are named "red"; wanted one'),
        ("class,round,red,dotted,weight", "a,1,1,1,1 kg", "weight [kg] is no attribute of the run"),
        ("class,round,red,dotted,weight", "a,1,1,1,heavy", "weight missing (3 attributes; the run has 4)"),
        ("class,round,red,dotted,weight", "a,1,1,1,nan", "weight missing (3 attributes; the run has 4)"),
        ("class,round,red,dotted,weight", "a,1,1,1,5\na,1,1,1,6", "class a is in 2 rows"),
        ("class,round,red,dotted,weight", "a,1,1,1,5\nb,1,1,1,", "1 empty cells or NaN, first b, weight"),
        ("round,red,dotted,weight", "1,1,1,1", "no column has the class names"),
    ],
)
def test_a_wrong_table_of_new_classes_is_refused_in_one_line(
    run: Path, tmp_path: Path, header: str, row: str, message: str
) -> None:
    table = tmp_path / "new.csv"
    table.write_text(f"{header}\n{row}\n")
    with pytest.raises(UserError) as caught:
        fastzsl.load(run).own.candidates(table)
    assert message in str(caught.value)
    assert "new.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("nowhere.csv", "no file nowhere.csv"),
        ({}, "classes is empty"),
        ({"a": [1, 2, 3]}, "class a has 3 attributes; the run has 4"),
        ({"a": [1, 2, 3, float("nan")]}, "class a has NaN"),
        ({"a": {"round": 1}}, "red and 2 more missing"),
    ],
)
def test_wrong_classes_in_python_are_refused(run: Path, classes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fastzsl.load(run).own.candidates(classes)


def test_heatmaps_are_the_attention_of_the_class_bilinear_to_the_size_of_the_image(
    run: Path, folder: Path
) -> None:
    model = fastzsl.load(run)
    path = predictor.list_images(folder)[9]
    found = model.predict(path, attention_top=3)[0]
    assert found.attention is not None
    assert found.attention.shape == (3, 5, 5)
    torch.testing.assert_close(found.attention.sum((1, 2)), torch.ones(3))
    maps = model.backbone(model.backbone.preprocess(Image.open(path))[None]).half()
    with torch.no_grad():
        _, attention = model.model.attend(maps, model.own.embeddings)
    second = model.class_names.index(found.top(2)[1][0])
    expected = F.interpolate(attention[0, second].view(1, 1, 5, 5), (90, 120), mode="bilinear")[0, 0]
    heat = found.heatmap(1, 90, 120)
    torch.testing.assert_close(heat, expected / expected.max(), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="attention was kept for 3 classes"):
        found.heatmap(3, 90, 120)


def test_a_run_with_a_trained_backbone_predicts_with_the_trained_weights(
    folder: Path, tmp_path: Path
) -> None:
    settings = run_settings(folder, tmp_path / "run")
    train(settings.changed(train_backbone=True, backbone_lr=0.01, epochs=1, gamma_folds=0))
    model = fastzsl.load(tmp_path / "run")
    data = find_dataset(Sources("folder", folder))
    expected = score_images(model.model, data, torch.arange(4))
    found = torch.stack([p.scores for p in model.predict(data.images.paths[:4])])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # gamma is 0 without folds
    untrained = predictor.load_backbone("timm/test_resnet", "random").state_dict()
    trained = model.backbone.state_dict()
    assert any(not torch.equal(untrained[name], trained[name]) for name in untrained)


def test_a_run_without_attention_predicts_but_has_no_heatmap(folder: Path, tmp_path: Path) -> None:
    settings = run_settings(folder, tmp_path / "run").changed(epochs=1, gamma_folds=0)
    train(replace(settings, method=Pooled(**settings.method.settings())))
    model = fastzsl.load(tmp_path / "run")
    assert len(model.predict(folder)) == 28
    with pytest.raises(UserError, match="no attention"):
        model.predict(folder, attention_top=1)


def test_load_refuses_what_is_no_finished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        fastzsl.load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"config\.yaml"):
        fastzsl.load(tmp_path)
    for name in ("config.yaml", "classes.csv", "gamma.json", "data.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors"):
        fastzsl.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        fastzsl.load(tmp_path)
    with pytest.raises(UserError, match="--accelerator nonsense: You selected an invalid accelerator name"):
        fastzsl.load(run, accelerator="nonsense")
    with pytest.raises(UserError, match="d=96 but backbone timm/test_vit gives d=64"):
        fastzsl.load(run, backbone="timm/test_vit", backbone_weights="random")


def test_images_that_are_none_raise_or_are_kept_with_their_fault(run: Path, tmp_path: Path) -> None:
    model = fastzsl.load(run)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"bad\.jpg: not a readable image"):
        model.predict(bad)
    kept = model.predict([bad, np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9))], on_bad="keep")
    assert [p.error is None for p in kept] == [False, True, False]
    assert kept[2].error is not None
    assert "float64 array (9, 9)" in kept[2].error
