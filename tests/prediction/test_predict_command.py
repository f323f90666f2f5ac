"""`python -m fastzsl.predict`: images, classes, outputs and what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save

import fastzsl
from fastzsl import predict
from fastzsl.errors import UserError
from fastzsl.protocol.shots import ShotWeights


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
