"""Faults that use has found: precisions, names, folders, changed data, numbers out of range."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastzsl
import fastzsl.eval
import fastzsl.train

SMALL = [
    "--epochs", "2", "--hidden", "16", "--batch-size", "8", "--gamma-folds", "1", "--accelerator", "cpu",
    "--backbone", "timm/test_resnet", "--backbone-weights", "random", "--dataset", "folder",
]  # fmt: skip
NAMES = ("[/x]", ":smile:", "[a]b", "$x_{$", "\x1b[31mred", "<b>", "naïve", "日本")
"""Markup, an emoji, a formula, a terminal escape, and letters that some encodings lack."""


def make_root(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Classes of four small images each; the last two are unseen."""
    rng = np.random.default_rng(0)
    rows = [["class", "split", "a", "b", "c"]]
    for i, name in enumerate(names):
        folder = root / "images" / name.replace("/", "slash")
        folder.mkdir(parents=True)
        for k in range(4):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        split = "unseen" if i >= len(names) - 2 else "seen"
        rows.append([name.replace("/", "slash"), split, str(i & 1), str(i >> 1 & 1), str(i >> 2)])
    with open(root / "classes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def shared_cache(
    root: Path, own_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTZSL_CACHE", str(root.parent / "cache"))


def train(root: Path, out: Path, *flags: str) -> None:
    fastzsl.train.main([*SMALL, "--root", str(root), "--out", str(out), *flags])


def refused(capsys: pytest.CaptureFixture[str], call, arguments: list[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        call(arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_every_precision_trains_evaluates_and_predicts(
    root: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(root, tmp_path / "run", "--precision", precision)
    capsys.readouterr()
    fastzsl.eval.main([str(tmp_path / "run"), "--json"])
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    printed = json.loads(capsys.readouterr().out)
    assert printed == {name: kept[name] for name in printed}
    found = fastzsl.load(tmp_path / "run").predict(root / "images" / NAMES[1], attention_top=1)
    assert len(found) == 4
    assert all(p.scores.isfinite().all() for p in found)


def test_names_are_text_whatever_they_hold(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(root, tmp_path / "run")
    capsys.readouterr()
    predict = importlib.import_module("fastzsl.predict").main
    predict([str(tmp_path / "run"), str(root / "images" / ":smile:"), "--top", "8"])
    shown = capsys.readouterr().out
    for name in ("[slashx]", ":smile:", "[a]b", "$x_{$", "<b>"):
        assert name in shown
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_encoding_without_the_letters_ends_nothing(
    root: Path, tmp_path: Path, encoding: str
) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LANG": "C", "PYTHONUTF8": "0"}
    for command, flags in (
        ("train", [*SMALL, "--root", str(root), "--out", str(tmp_path / "run")]),
        ("predict", [str(tmp_path / "run"), str(root / "images" / "日本"), "--top", "8"]),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"fastzsl.{command}", *flags],
            env=environment, capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]


def test_a_run_is_evaluated_from_another_folder_and_after_its_data_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make_root(Path("data"), ("a", "b", "c", "d", "e", "f"))
    train(Path("data"), Path("run"))
    run = tmp_path / "here" / "run"
    monkeypatch.chdir(tmp_path)
    fastzsl.eval.main([str(run), "--json"])
    before = json.loads(capsys.readouterr().out.splitlines()[-1])
    (tmp_path / "here" / "data").rename(tmp_path / "elsewhere")
    assert "no folder" in refused(capsys, fastzsl.eval.main, [str(run)])
    fastzsl.eval.main([str(run), "--json", "--root", str(tmp_path / "elsewhere")])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == before


def test_eval_refuses_data_that_changed_since_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_root(tmp_path / "data", ("a", "b", "c", "d", "e", "f"))
    train(root, tmp_path / "run")
    (root / "images" / "f" / "3.png").unlink()
    message = refused(capsys, fastzsl.eval.main, [str(tmp_path / "run")])
    assert "was trained on other data: 24 images then, 23 now" in message
    fastzsl.eval.main([str(tmp_path / "run"), "--changed-data"])
    Image.new("RGB", (16, 16)).save(root / "images" / "f" / "3.png")  # replaced, not added
    assert "other data" in refused(capsys, fastzsl.eval.main, [str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attention-scale", "inf"], "--attention-scale is inf; wanted a finite number"),
        (["--seed", str(2**63)], "wanted at most"),
        (["--batch-size", str(2**63)], "wanted at most"),
        (["--hidden", str(10**12)], "wanted at most"),
        (["--distractors", "1000000"], "wanted at most"),
        (["--alpha", "nan"], "wanted a finite number"),
        (["--devices", "-1"], "wanted a number above 0"),
        (["--backend", "triton"], "triton"),
        (["--image-size", "3"], "--image-size is 3"),
        (["--method", "eszl"], 'did you mean "eszsl"'),
        (["--method"], "--method needs a value"),
        (["--config"], "--config needs a value"),
    ],
)
def test_numbers_out_of_range_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    arguments = [*SMALL, "--root", str(root), "--out", str(tmp_path / "run"), *flags]
    assert message in refused(capsys, fastzsl.train.main, arguments)
    assert not (tmp_path / "run").exists()


def test_an_unknown_backend_in_the_environment_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, tmp_path / "run")
    monkeypatch.setenv("FASTZSL_BACKEND", "fast")
    arguments = [*SMALL, "--root", str(root), "--out", str(tmp_path / "other")]
    for call, words in (
        (fastzsl.train.main, arguments),
        (fastzsl.eval.main, [str(tmp_path / "run")]),
        (importlib.import_module("fastzsl.predict").main, [str(tmp_path / "run"), str(root / "images")]),
    ):
        assert 'FASTZSL_BACKEND is "fast"' in refused(capsys, call, words)


@pytest.mark.parametrize(
    "tail", [b"\x00\xff\n", b"null\n", b"7\n", b"[1]\n", b'{"step": "x"}\n', b"[" * 3000 + b"\n"]
)
def test_damaged_lines_of_metrics_do_not_end_a_resumed_run(root: Path, tmp_path: Path, tail: bytes) -> None:
    out = tmp_path / "run"
    train(root, out)
    with open(out / "metrics.jsonl", "ab") as file:
        file.write(tail)
    train(root, out, "--resume")
    assert all("step" in json.loads(line) for line in (out / "metrics.jsonl").open())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "alpha=[1"], "--grid alpha=[1: [1 is not a value"),
        (["--grid", "alpha=x,y"], "alpha is 'x'; wanted a number"),
        (["--grid", "alpha=0.1,"], "wanted NAME=VALUE,VALUE,..."),
        (["--grid", "beta=1"], "unknown setting beta"),
        (["--rounds", "0"], "--rounds is 0; wanted 1 or more"),
        (["--folds", "1"], "wanted 2 to 1000 folds"),
        (["--method", "eszsl", "--set", "epochs=3"], "wanted NAME=VALUE"),
    ],
)
def test_tune_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    tune = importlib.import_module("fastzsl.tune").main
    assert message in refused(capsys, tune, [*words, "--out", str(tmp_path)])


def test_reproduce_without_a_data_set_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reproduce = importlib.import_module("fastzsl.reproduce").main
    message = refused(capsys, reproduce, ["--datasets", "--out", str(tmp_path)])
    assert "--datasets" in message


def test_two_programs_do_not_write_into_one_run(root: Path, tmp_path: Path) -> None:
    from fastzsl.files.lock import locked

    (tmp_path / "run").mkdir()
    script = "import sys; from fastzsl.train import main; main(sys.argv[1:])"
    with locked(tmp_path / "run"):
        done = subprocess.run(
            [sys.executable, "-c", script, *SMALL, "--root", str(root), "--out", str(tmp_path / "run")],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 2
    assert "in use by another process" in done.stderr
