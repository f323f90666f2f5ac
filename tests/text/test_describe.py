"""The command: from class names to a trained run and to predictions of a class that words describe."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastzsl
import fastzsl.describe
import fastzsl.make_dataset
import fastzsl.predict
import fastzsl.train
from fastzsl.data.formats.drawing import draw_image
from fastzsl.errors import UserError

WORDS = ("red", "blue", "round", "square", "striped", "thing", "ball", "box")
CLASSES = ("red_ball", "blue_ball", "red_box", "blue_box", "striped_ball", "striped_box")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    rows = np.random.default_rng(0).normal(size=(len(WORDS), 6)).round(3)
    path.write_text("\n".join(f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, rows)))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, vectors: Path) -> Path:
    """A folder of images, and nothing else but what the command makes of its names."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / "images" / name).mkdir(parents=True)
        for i in range(3):
            image, _ = draw_image([(label, label, label % 4)], rng, 64)
            image.save(root / "images" / name / f"{i}.png")
    command = ["--images", str(root / "images"), "--model", str(vectors), "--out", str(root / "classes.csv")]
    fastzsl.describe.main(command)
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTZSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        fastzsl.train.main(
            ["--dataset", "folder", "--root", str(root), "--out", str(out), "--backbone", "timm/test_resnet",
             "--backbone-weights", "random", "--epochs", "1", "--hidden", "8", "--gamma-folds", "1"]
        )  # fmt: skip
    return out


def refused(capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], None], *words: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert len(lines) == 1, lines
    return lines[0]


def test_the_table_has_the_means_of_the_words_and_a_record_beside_it(root: Path, vectors: Path) -> None:
    with open(root / "classes.csv", newline="") as file:
        header, *rows = csv.reader(file)
    own = {line.split()[0]: np.array(line.split()[1:], float) for line in vectors.read_text().splitlines()}
    assert header[:2] == ["class", "split"]
    assert [row[:2] for row in rows] == [[name, "seen"] for name in sorted(CLASSES)]
    for row in rows:
        np.testing.assert_allclose(
            np.array(row[2:], float), np.mean([own[w] for w in row[0].split("_")], axis=0), atol=1e-6
        )
    record = json.loads((root / "classes.json").read_text())
    assert record["model"] == str(vectors)
    assert all(title.startswith(f"words.txt@{record['digest'][:8]}:") for title in header[2:])


def test_a_class_in_words_is_recognised_by_the_model_that_described_the_runs_own(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = root / "images" / "red_ball" / "0.png"
    words = ["--describe", "hoop=round thing", "hoop=striped thing", "--beside", "all", "--json"]
    fastzsl.predict.main([str(run), str(image), *words, "--heatmap", str(tmp_path / "maps")])
    found = json.loads(capsys.readouterr().out)["images"][0]["predictions"]
    assert (tmp_path / "maps").is_dir()
    assert len(found) == 5
    recogniser = fastzsl.load(run)
    new = recogniser.describe({"hoop": ["round thing", "striped thing"], "own": "red ball"})
    prediction = recogniser.predict(image, new)[0]
    own = recogniser.predict(image, "seen")[0]
    scores = dict(zip(prediction.classes, prediction.scores.tolist()))
    expected = dict(zip(own.classes, own.scores.tolist()))["red_ball"]
    assert scores["own"] == pytest.approx(expected, abs=1e-5)


def test_embeddings_of_another_model_are_refused(
    run: Path, root: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(vectors.read_text().replace("red ", "red 0", 1))
    table = tmp_path / "new.csv"
    fastzsl.describe.main(["hoop=round thing", "--model", str(other), "--out", str(table)])
    image = root / "images" / "red_ball" / "0.png"
    line = refused(capsys, fastzsl.predict.main, run, image, "--classes", table)
    assert "other.txt@" in line
    line = refused(
        capsys, fastzsl.predict.main, run, image, "--describe", "hoop=thing", "--describe-model", other
    )
    assert "embeddings of two models cannot be mixed" in line
    fastzsl.describe.main(["hoop=round thing", "--like", str(run), "--out", str(tmp_path / "like.csv")])
    fastzsl.predict.main([str(run), str(image), "--classes", str(tmp_path / "like.csv")])


def test_make_dataset_carries_the_record(root: Path, vectors: Path, tmp_path: Path) -> None:
    table = tmp_path / "words.csv"
    fastzsl.describe.main([*CLASSES, "--model", str(vectors), "--out", str(table)])
    out = tmp_path / "data"
    fastzsl.make_dataset.main(
        ["--images", str(root / "images"), "--attributes", str(table), "--out", str(out)]
    )
    assert json.loads((out / "classes.json").read_text()) == json.loads(
        table.with_suffix(".json").read_text()
    )


def test_wrong_input_of_the_command(
    root: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    model = ["--model", vectors]

    def wrong(*words: object) -> str:
        line = refused(capsys, fastzsl.describe.main, *words)
        assert not out.exists()
        return line

    assert "--out is missing" in wrong("red")
    assert "no classes given" in wrong("--out", out)
    assert "wanted a name that ends in .csv" in wrong("red", *model, "--out", tmp_path / "out.txt")
    assert '"=red"; wanted NAME or NAME=TEXT' in wrong("=red", *model, "--out", out)
    assert '"red="; wanted NAME or NAME=TEXT' in wrong("red=", *model, "--out", out)
    assert 'nearest known: "red"' in wrong("redd", *model, "--out", out)
    assert "no file" in wrong("red", "--model", tmp_path / "none", "--out", out)
    assert "no file" in wrong("--file", tmp_path / "none", *model, "--out", out)
    assert "no folder" in wrong("--images", tmp_path / "none", *model, "--out", out)
    assert "no folders in it" in wrong("--images", root / "images" / "red_box", *model, "--out", out)
    assert "has 0 places {}" in wrong("red", *model, "--templates", "a photo", "--out", out)
    assert "no record" in wrong("red", "--like", root / "images", "--out", out)
    assert "--like takes encoder" in wrong("red", "--like", root, "--templates", "a {}", "--out", out)
    assert "--encoder" in wrong("red", "--encoder", "letters", "--out", out)
    out.with_suffix(".json").write_text("{}")
    assert "was not made by this command" in wrong("red", *model, "--out", out)
    out.write_text("class,a\nred,1\n")
    assert "was not made by this command" in refused(
        capsys, fastzsl.describe.main, "red", *model, "--out", out
    )
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xff\xfe\x00")
    assert "not a text in UTF-8" in refused(
        capsys, fastzsl.describe.main, "--file", names, *model, "--out", out
    )


def test_wrong_input_of_predict(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = root / "images" / "red_ball" / "0.png"
    line = refused(capsys, fastzsl.predict.main, run, image, "--describe", "a=red", "--classes", "seen")
    assert "both say which classes" in line
    line = refused(capsys, fastzsl.predict.main, run, image, "--describe", "zzz")
    assert '"zzz" is not a word of' in line
    line = refused(capsys, fastzsl.predict.main, run, image, "--describe", "=red")
    assert "wanted NAME or NAME=TEXT" in line
    recogniser = fastzsl.load(run)
    recogniser.record = None
    with pytest.raises(UserError, match="are not described by texts"):
        recogniser.describe({"a": "red"})
