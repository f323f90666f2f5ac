"""The entry points: every fault ends in one line on stderr and exit code 2, and costs nothing already written."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastzsl.eval
import fastzsl.info
import fastzsl.train
from fastzsl.command.exits import exits_with_message
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.engines import checkpoint
from fastzsl.training.opened import open_run

SMALL = ["--epochs", "2", "--hidden", "16", "--batch-size", "8", "--gamma-folds", "1", "--dataset", "folder"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of five images."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = ["class,split,a,b,c"]
    for i in range(6):
        (root / "images" / f"c{i}").mkdir(parents=True)
        for k in range(5):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
                root / "images" / f"c{i}" / f"{k}.png"
            )
        lines.append(f"c{i},{'unseen' if i > 4 else 'seen'},{i & 1},{i >> 1 & 1},{i >> 2}")
    (root / "classes.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_cache(cache: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTZSL_CACHE", str(cache))


def train(root: Path, out: Path, *flags: str) -> None:
    fastzsl.train.main([*SMALL, "--root", str(root), "--out", str(out), *flags])


def refused(capsys: pytest.CaptureFixture[str], call, *arguments: object) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fastzsl: error: ")
    return lines[0]


def test_a_run_leaves_everything_and_takes_its_own_configuration_back(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(root, tmp_path / "a")
    shown = capsys.readouterr().out
    for name in ("T1", "U", "S", "H", "AUSUC", "gamma"):
        assert name in shown
    fastzsl.train.main(["--config", str(tmp_path / "a" / "config.yaml"), "--out", str(tmp_path / "b")])
    same = [(tmp_path / run / "model.safetensors").read_bytes() for run in "ab"]
    assert same[0] == same[1]


def test_second_run_reads_the_cached_features(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, tmp_path / "a")
    monkeypatch.setattr("fastzsl.features.backbones.Backbone.preprocess", None)
    train(root, tmp_path / "b")


def test_training_the_backbone_too(root: Path, tmp_path: Path) -> None:
    """resnet18 with random weights in the graph: its weights move and are kept with the model."""
    from safetensors.torch import load_file

    from fastzsl.features.backbones import load_backbone

    train(root, tmp_path / "a", "--backbone", "resnet18", "--backbone-weights", "random", "--train-backbone",
          "--epochs", "1", "--gamma-folds", "0", "--backbone-lr", "0.01")  # fmt: skip
    kept = load_file(tmp_path / "a" / "model.safetensors")
    before = load_backbone("resnet18", "random").state_dict()
    moved = [k for k, v in before.items() if not torch.equal(v, kept[f"backbone.{k}"])]
    assert "trunk.0.weight" in moved
    assert not any("running" in k for k in moved)  # batch statistics stay those of the pretraining


def test_faults_of_settings(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    message = refused(capsys, train, root, out, "--backbone", "resnet11")
    assert 'unknown backbone "resnet11"; did you mean "resnet1' in message
    assert "--alpha is -1.0; wanted 0 or more" in refused(capsys, train, root, out, "--alpha", "-1")
    message = refused(capsys, fastzsl.train.main, ["--dataset", "folder", "--out", str(out)])
    assert "--dataset folder needs --root DIR" in message
    assert "no folder" in refused(capsys, train, tmp_path / "nowhere", out)
    assert not out.exists()


def test_wrong_flags_suggest_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fastzsl.train.main(["--epoch", "3"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert "--epochs" in shown.out + shown.err


def test_a_folder_of_other_settings_is_not_touched(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(root, out)
    capsys.readouterr()
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert "holds a run with --lr 0.003, not 0.1" in refused(capsys, train, root, out, "--lr", "0.1")
    assert "holds a run with" in refused(capsys, train, root, out, "--lr", "0.1", "--resume")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    assert "is not empty and holds no run" in refused(capsys, train, root, tmp_path / "other")
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}


def test_bad_data_after_a_good_run_keeps_the_run(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(root, out)
    capsys.readouterr()
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    table = root / "classes.csv"
    good = table.read_text()
    try:
        table.write_text(good.replace("c1,seen,1", "c1,seen,one"))
        assert 'row 3, column "a": "one"' in refused(capsys, train, root, out)
    finally:
        table.write_text(good)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize("file", ["checkpoint.pt", "model.safetensors", "gamma.json", "config.yaml"])
def test_files_cut_short_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    out = tmp_path / "run"
    train(root, out)
    capsys.readouterr()
    cut = out / file
    cut.write_bytes(cut.read_bytes()[: len(cut.read_bytes()) // 2] if file != "config.yaml" else b"epochs: [")
    if file == "checkpoint.pt":
        message = refused(capsys, train, root, out, "--resume")
    else:
        message = refused(capsys, fastzsl.eval.main, [str(out)])
    assert file in message
    assert "not" in message


def test_a_checkpoint_that_would_run_code_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hostile:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "owned",)

    out = tmp_path / "run"
    train(root, out)
    capsys.readouterr()
    torch.save({"step": 1, "model": Hostile()}, out / "checkpoint.pt")
    assert "not a whole checkpoint" in refused(capsys, train, root, out, "--resume")
    assert not (tmp_path / "owned").exists()


def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, train, root, tmp_path / "run", "--lr", "1e25", "--epochs", "9")
    assert "the loss is nan at step" in message or "the loss is inf at step" in message
    assert "checkpoint" in message


def test_no_network_for_weights_says_what_to_bring(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.error import URLError

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = refused(capsys, train, root, tmp_path / "run", "--backbone", "resnet101")
    assert "--backbone-weights FILE" in message
    assert "efficientnet_lite0" in message


def test_a_full_disk_is_one_line_and_leaves_no_half_files(root: Path, tmp_path: Path) -> None:
    """A run folder on a file system of 200 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        flags = [*SMALL, "--hidden", "64", "--root", str(root), "--out", str(disk / "run")]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fastzsl.train", *flags],
            capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((disk / "run").glob(".*partial"))
        assert not (disk / "run" / "model.safetensors").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_eval_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "wanted the run folder" in refused(capsys, fastzsl.eval.main, [str(tmp_path / "none")])


def test_info_names_every_backend_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    fastzsl.info.main(["--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["backends"]) == {"eager", "native", "triton"}
    assert all(v == "available" or v.startswith("missing: ") for v in found["backends"].values())
    fastzsl.info.main([])
    shown = capsys.readouterr().out
    assert "FASTZSL_BACKEND" in shown


def test_epochs_are_chosen_on_held_out_classes_once_and_the_run_says_so(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(root, out, "--choose-epochs", "1", "3")
    kept = json.loads((out / "gamma.json").read_text())
    best = max(kept["tried"], key=lambda row: row["AUSUC"])
    assert [row["epochs"] for row in kept["tried"]] == [1, 3]
    assert kept["chosen"] == {"epochs": best["epochs"]}
    assert len({json.loads(line)["epoch"] for line in (out / "metrics.jsonl").open()}) == best["epochs"]
    results = json.loads((out / "results.json").read_text())
    assert "epochs" in results["settings_chosen_on"]
    assert results["gamma"] == kept["gamma"]
    assert (
        f"epochs {best['epochs']}: chosen on held-out seen classes among 2 settings"
        in capsys.readouterr().out
    )

    before = (out / "gamma.json").stat().st_mtime_ns
    train(root, out, "--choose-epochs", "1", "3", "--resume")
    assert (out / "gamma.json").stat().st_mtime_ns == before, "a resumed run chooses nothing again"
    assert "--gamma-folds above 0" in refused(
        capsys, train, root, tmp_path / "none", "--choose-epochs", "2", "--gamma-folds", "0"
    )
    line = refused(capsys, train, root, tmp_path / "none", "--choose-epochs", "2", "0")
    assert "wanted numbers above 0" in line
    (out / "checkpoint.pt").unlink(missing_ok=True)
    for spoilt, message in (
        ({"epochs": "many"}, "wanted a whole number"),
        ({"x": 1}, "unknown setting x"),
        ({"similarity": "far"}, "wanted one of"),
        ([3], "remove the file to choose again"),
    ):
        (out / "gamma.json").write_text(json.dumps({**kept, "chosen": spoilt}))
        line = refused(capsys, train, root, out, "--choose-epochs", "1", "3", "--resume")
        assert message in line
        assert "gamma.json" in line


def test_the_size_of_the_images_is_chosen_on_held_out_classes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(root, out, "--choose-image-size", "64", "96")
    shown = capsys.readouterr().out
    assert "images of 64 pixels: T1 0" in shown
    assert "images of 96 pixels: T1 0" in shown
    kept = json.loads((out / "gamma.json").read_text())
    best = max(kept["tried"], key=lambda row: row["AUSUC"])
    assert [row["image_size"] for row in kept["tried"]] == [64, 96]
    assert kept["chosen"] == {"image_size": best["image_size"]}
    opened = open_run(out)
    assert opened.settings.features.image_size == best["image_size"]
    fastzsl.eval.main([str(out), "--json"])
    found, wanted = json.loads(capsys.readouterr().out), json.loads((out / "results.json").read_text())
    assert found["AUSUC"] == wanted["AUSUC"]
    before = (out / "gamma.json").stat().st_mtime_ns
    train(root, out, "--choose-image-size", "64", "96", "--resume")
    assert (out / "gamma.json").stat().st_mtime_ns == before, "a resumed run chooses nothing again"
    for flags, message in (
        (["96", "8"], "--image-size is 8; wanted 16 to 4096 pixels"),
        (["96", "--image-size", "64"], "wanted one of them"),
        (["96", "--train-backbone"], "give --image-size"),
        (["96", "--gamma-folds", "0"], "wanted --gamma-folds above 0"),
    ):
        line = refused(capsys, train, root, tmp_path / "none", "--choose-image-size", *flags)
        assert message in line


def test_a_run_is_opened_with_the_recipe_that_trained_it(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe may change the model too, and config.yaml holds what was asked for."""
    recipe = {"attention_scale": 100.0, "embedding_normalisation": "whiten", "region_dropout": 0.3}
    monkeypatch.setattr(Attended, "recipes", {"other": recipe})
    for flags in (["--recipe", "other"], ["--gamma-folds", "0"]):
        out = tmp_path / flags[0]
        train(root, out, *flags)
        if flags[0] != "--recipe":  # the same in gamma.json, as if it had been the better of two
            assert open_run(out).settings.method.embedding_normalisation == "centre"
            kept = json.loads((out / "gamma.json").read_text())
            (out / "gamma.json").write_text(json.dumps({**kept, "chosen": recipe}))
            shutil.copy(tmp_path / "--recipe" / "model.safetensors", out / "model.safetensors")
        else:
            before = (out / "model.safetensors").stat().st_mtime_ns
            train(root, out, *flags, "--resume")
            assert (out / "model.safetensors").stat().st_mtime_ns > before, "the same run, by the same flags"
            monkeypatch.setattr(Attended, "recipes", {"other": {"epochs": 3, "attention_scale": 5.0}})
        opened = open_run(out)  # the recipes of the installed version do not matter
        assert {name: getattr(opened.settings.method, name) for name in recipe} == recipe
        capsys.readouterr()
        fastzsl.eval.main([str(out), "--json"])
        found = json.loads(capsys.readouterr().out)
        wanted = json.loads((tmp_path / "--recipe" / "results.json").read_text())
        assert found["AUSUC"] == wanted["AUSUC"]
        assert found["T1"] == wanted["T1"]


@pytest.mark.parametrize("words", ["can't start new thread", "[enforce fail] can't allocate memory: 9 bytes"])
def test_errors_that_mean_too_little_memory_are_one_line(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @exits_with_message
    def fails() -> None:
        raise RuntimeError(words)

    with pytest.raises(SystemExit) as stop:
        fails()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("fastzsl: error: not enough memory")


def test_too_little_memory_for_a_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.save` then ends with "unexpected pos 704 vs 598"."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 10_000:
                raise MemoryError
            return super().write(data)

    monkeypatch.setattr(checkpoint, "io", SimpleNamespace(BytesIO=Full))

    @exits_with_message
    def saves() -> None:
        checkpoint.save_state(tmp_path / "checkpoint.pt", {"weights": torch.zeros(10_000)})

    with pytest.raises(SystemExit) as stop:
        saves()
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("fastzsl: error: not enough memory") for line in lines] == [True]
    assert not list(tmp_path.iterdir())
