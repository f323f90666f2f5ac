"""Prediction by a trained run agrees with evaluation, takes new classes, and names what is wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save

import fastzsl
from fastzsl import predict
from fastzsl.data.find import Sources, find_dataset
from fastzsl.data.formats.drawing import draw_image
from fastzsl.errors import UserError
from fastzsl.methods.attended.pooled import Pooled
from fastzsl.prediction import recogniser as predictor
from fastzsl.protocol.scoring import score_images
from fastzsl.protocol.shots import ShotWeights
from fastzsl.train import train
from fastzsl.training.inputs import prepare
from fastzsl.training.settings import Settings, load_settings

ATTRIBUTES = ("round", "red", "dotted", "weight")


@pytest.fixture(scope="module")
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


def _settings(folder: Path, out: Path) -> Settings:
    return Settings().changed(
        dataset="folder", root=folder, backbone="timm/test_resnet", backbone_weights="random", hidden=8,
        epochs=2, batch_size=8, gamma_folds=1, accelerator="cpu", backend="eager", out=out,
        embedding_normalisation="standardise",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTZSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(_settings(folder, out))
    gamma = json.loads((out / "gamma.json").read_text())
    (out / "gamma.json").write_text(json.dumps({**gamma, "gamma": 0.125}))
    return out


def _evaluated(run: Path) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """Paths, evaluation's scores (N, C) and the unseen ids, for every image of the data set."""
    settings = load_settings(run / "config.yaml")
    data, _ = prepare(settings, torch.device("cpu"), _no_progress())
    assert data.regions.feature_shape[0] == 96
    scores = score_images(fastzsl.load(run).model, data, torch.arange(len(data.labels)))
    return data.images.paths, scores, data.unseen


def _no_progress():
    from rich.progress import Progress

    return Progress(disable=True)


def test_scores_are_those_of_evaluation_with_gamma_on_unseen_classes_only(run: Path) -> None:
    paths, scores, unseen = _evaluated(run)
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
    settings = _settings(folder, tmp_path / "run")
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
    settings = _settings(folder, tmp_path / "run").changed(epochs=1, gamma_folds=0)
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


def test_command_line_names_bad_images_and_recognises_the_others(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, gone = tmp_path / "bad.jpg", tmp_path / "gone.jpg"
    whole = (folder / "images" / "class 1" / "0.png").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    good = folder / "images" / "class 1"
    heat = tmp_path / "heat"
    arguments = [str(run), str(bad), str(good), str(gone), "--top", "2", "--heatmap", str(heat), "--json"]
    with pytest.raises(SystemExit) as caught:
        predict.main(arguments)
    assert caught.value.code == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "gamma 0.1250 is added" in result["classes"]
    faults = [line for line in captured.err.splitlines() if "skipped" in line]
    assert len(faults) == 2
    assert str(bad) in faults[0]
    assert f"{gone}: no such file" in faults[1]
    recognised = result["images"][1:5]
    expected = fastzsl.load(run).predict(good)
    for entry, prediction in zip(recognised, expected):
        assert entry["image"] == prediction.image
        assert [row["class"] for row in entry["predictions"]] == [name for name, _ in prediction.top(2)]
        for row in entry["predictions"]:
            assert Image.open(row["heatmap"]).size == Image.open(entry["image"]).size
    assert len(list(heat.iterdir())) == 8


def test_overlays_of_images_with_one_name_do_not_overwrite_each_other(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    same = [str(folder / "images" / f"class {i}" / "0.png") for i in (1, 2)]
    predict.main([str(run), *same, "--top", "1", "--heatmap", str(tmp_path / "heat")])
    assert len(list((tmp_path / "heat").iterdir())) == 2


def test_a_file_of_predictions_continues_and_has_probabilities_rejections_and_heatmaps_of_their_own(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / os.fsdecode(b"caf\xe9.png")
    named.write_bytes((folder / "images" / "class 2" / "0.png").read_bytes())
    images = [str(folder / "images" / f"class {i}" / "0.png") for i in (0, 1)] + [str(named)]
    out, heat = tmp_path / "out.csv", tmp_path / "heat"
    arguments = [str(run), *images, "--top", "2", "--out", str(out), "--reject", "--heatmap", str(heat)]
    predict.main(arguments)
    content = out.read_bytes()
    assert len(list(heat.iterdir())) == 6
    with open(out, newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [image for image in images for _ in range(2)]
    assert len({row["heatmap"] for row in rows}) == 6
    assert all(Path(row["heatmap"]).is_file() for row in rows)
    model = fastzsl.load(run)
    for prediction, row in zip(model.predict(images), rows[::2]):
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(float(prediction.probabilities.max()), abs=1e-5)
        assert row["none_of_these"] == str(prediction.none_of_these)
    alone = model.predict(images[0], "unseen")[0]
    expected = model.probabilities["among_unseen"].of(alone.scores)
    torch.testing.assert_close(alone.probabilities, expected)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        predict.main(arguments)
    assert caught.value.code == 2
    assert "out.csv exists; remove it, or choose another" in capsys.readouterr().err
    assert out.read_bytes() == content


def test_a_few_images_of_a_new_class_count_as_the_run_chose(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = tmp_path / "shots"
    (shots / "Like_3").mkdir(parents=True)
    for i in (0, 1):
        shutil.copy(folder / "images" / "class 3" / f"{i}.png", shots / "Like_3" / f"{i}.png")
    model = fastzsl.load(run)
    assert model.means is not None
    model.shot_weights = ShotWeights(0.5, {1: 2.0, 2: 4.0})
    new = {"like 3": [1, 1, 0, 0.3], "other": [0, 0, 0, 0.9]}
    image = folder / "images" / "class 3" / "2.png"
    plain = model.predict(image, new, beside="seen")[0]
    found = model.predict(image, new, beside="seen", shots=shots)[0]
    pooled = [
        model.backbone(model.backbone.preprocess(Image.open(p).convert("RGB"))[None])
        .half()
        .float()
        .mean((2, 3))[0]
        for p in (*sorted((shots / "Like_3").iterdir()), image)
    ]
    centre = model.means.centre
    expected = (
        0.5 * 4.0 * F.cosine_similarity(pooled[2] - centre, (pooled[0] + pooled[1]) / 2 - centre, dim=0)
    )
    added = found.scores - plain.scores
    torch.testing.assert_close(added[0], expected.detach(), rtol=0, atol=1e-3)
    assert added[1] == 0
    known = 2.0 * F.cosine_similarity((pooled[2] - centre)[None], model.means.means - centre)
    torch.testing.assert_close(added[2:], known.detach(), rtol=0, atol=1e-3)
    assert found.probabilities is None
    for wrong, message in (
        ({"like 4": [image]}, 'like 4: it is no candidate; did you mean "like 3"'),
        ({"class 3": [image]}, "class 3: the run was trained on images of this class"),
        ({"like 3": []}, "like 3: no images"),
        ({"like 3": [b"none"]}, "like 3: image 0: not a readable image"),
        (tmp_path / "nothing", "no folder"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(image, new, beside="seen", shots=wrong)
    model.means = None
    with pytest.raises(UserError, match="the run has no weights for a few images"):
        model.predict(image, new, shots=shots)


def test_rejection_without_a_threshold_is_refused(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "gamma.json").write_text('{"gamma": 0.1}')
    image = str(folder / "images" / "class 0" / "0.png")
    with pytest.raises(SystemExit):
        predict.main([str(bare), image, "--reject"])
    assert "--reject needs the threshold that training chooses" in capsys.readouterr().err
    assert fastzsl.load(bare).predict(image)[0].probabilities is None


def test_table_shows_the_best_classes(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder / "images" / "class 1" / "0.png"
    predict.main([str(run), str(image), "--top", "1", "--classes", "unseen"])
    shown = capsys.readouterr().out
    name, score = fastzsl.load(run).predict(image, "unseen")[0].top(1)[0]
    assert name in shown
    assert f"{score:.4f}" in shown


def test_new_classes_beside_the_seen_ones_get_gamma_and_the_output_says_so(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new.csv"
    table.write_text("class,round,red,dotted,weight\nlike 3,1,1,0,0.3\n")
    image = str(folder / "images" / "class 3" / "0.png")
    arguments = [str(run), image, "--classes", str(table), "--beside", "seen", "--top", "9", "--json"]
    predict.main(arguments)
    result = json.loads(capsys.readouterr().out)
    assert result["gamma"] == 0.125
    assert "beside the run's 5 seen classes; gamma 0.1250 is added" in result["classes"]
    rows = {row["class"]: row for row in result["images"][0]["predictions"]}
    assert {row["kind"] for row in rows.values()} == {"new", "seen"}
    assert rows["like 3"]["score"] == pytest.approx(rows["class 3"]["score"] + 0.125, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.png", "--top", "0"], "--top is 0; wanted 1 or more"),
        ([], "no image given"),
        (["empty"], "no images below this folder"),
        (["gone.png"], "fastzsl: skipped: gone.png: no such file"),
        (["image.png", "--accelerator", "tpu"], "--accelerator tpu: "),
        (["image.png", "--accelerator", "nothing"], "--accelerator nothing: "),
        (["image.png", "--heatmap", "file"], "--heatmap file is a file; wanted a folder"),
        (["image.png", "--out", "a.txt"], "--out a.txt: wanted a file that ends with .csv, .jsonl, .parquet"),
        (["image.png", "--out", "a.csv", "--json"], "--json prints and --out writes a file"),
        (["image.png", "--missing", "guess"], "--missing"),
        (["image.png", "--shots", "empty", "--reject"], "--reject has no threshold for --shots"),
        (["image.png", "--shots", "gone"], "no folder gone"),
        (["image.png", "--shots", "empty"], "empty: no class; wanted a folder of images for each class"),
        (["image.png", "--beside", "seen"], "--beside seen needs new classes; wanted --classes FILE"),
        (["image.png", "--beside", "unseen", "--classes", "file"], "--beside"),
    ],
)
def test_command_line_that_can_do_nothing_exits_with_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        predict.main([str(run), *arguments])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("gamma.json", b"[1]", "gamma.json: list; wanted an object"),
        ("gamma.json", b'{"gamma": "high"}', "gamma.json: gamma is 'high'; wanted a finite number"),
        ("gamma.json", b'{"gamma": 1' + b"0" * 400 + b"}", "wanted a finite number"),
        (
            "data.json",
            b'{"feature_dim": -1}',
            "data.json: feature_dim is '-1'; wanted a whole number above 0",
        ),
        ("model.safetensors", save({"a": torch.ones(2)}), "model.safetensors: "),
        ("model.safetensors", b"none", "not a whole safetensors file"),
        ("classes.csv", b"class,split\nx,seen\n", "no column of numbers beside the class names"),
        ("classes.csv", b"class,split,a\nx,seen,1\ny,unseen,2\n", "model.safetensors: size mismatch"),
        ("config.yaml", b"backbone: resnet181\n", 'unknown backbone "resnet181"'),
        ("config.yaml", b"accelerator: tpu\n", "--accelerator tpu: "),
    ],
)
def test_a_damaged_run_is_one_line(
    run: Path, tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    if file == "config.yaml":  # the line takes the place of the one of its setting
        name = content.split(b":")[0] + b":"
        lines = (run / file).read_bytes().splitlines(True)
        content = b"".join(b"  " + content if x.strip().startswith(name) else x for x in lines)
    (damaged / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        fastzsl.load(damaged)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
