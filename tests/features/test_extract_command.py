"""`python -m fastzsl.extract`: from folders to files that train, also after a kill, and no other files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from rich.console import Console

from fastzsl.data.find import Sources, find_dataset
from fastzsl.data.formats.hdf5 import hdf5_dataset
from fastzsl.errors import UserError
from fastzsl.extract import Settings, extract
from fastzsl.features.writer import partial_path
from tests.data.xlsa17_files import labels_for, make_root, real_split
from tests.features.feature_files import tiny_backbone

QUIET = Console(quiet=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four classes of 15 images, one of the classes unseen."""
    root, rng = tmp_path / "animals", np.random.default_rng(0)
    rows = ["class,split,legs,size"]
    for i, name in enumerate(("ant", "bee", "cat", "dog")):
        (root / "images" / name).mkdir(parents=True)
        for k in range(15):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{k}.png")
        rows.append(f"{name},{'unseen' if i == 3 else 'seen'},{6 - i},{i * i}")
    (root / "classes.csv").write_text("\n".join(rows))
    return root


def test_a_folder_becomes_a_file_that_holds_the_same_data_set(tmp_path: Path, folder: Path) -> None:
    out = extract(Settings("folder", tmp_path / "f.h5", folder, backbone_weights="random"), QUIET)
    data, truth = hdf5_dataset(out), find_dataset(Sources("folder", folder))
    for field in ("class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen"):
        assert torch.equal(getattr(data, field), getattr(truth, field)), field
    assert data.class_names == truth.class_names
    assert data.attribute_names == ("legs", "size")
    assert data.regions is not None
    assert data.regions.feature_shape == (1280, 7, 7)


def test_the_papers_loaders_find_every_key(tmp_path: Path, folder: Path) -> None:
    """The reads that loaders of the dense-attention papers make, whole arrays at a time."""
    out = extract(Settings("folder", tmp_path / "f.h5", folder, backbone_weights="random"), QUIET)
    with h5py.File(out, "r") as file:
        features = np.array(file.get("feature_map"))
        labels = np.array(file.get("labels"))
        trainval, test_seen, test_unseen = (
            np.array(file.get(k)) for k in ("trainval_loc", "test_seen_loc", "test_unseen_loc")
        )
        att, original = np.array(file.get("att")), np.array(file.get("original_att"))
    assert features.shape == (60, 1280, 7, 7)
    assert torch.from_numpy(features[trainval]).float().isfinite().all()
    assert sorted(set(labels[trainval])) == sorted(set(labels[test_seen])) == [0, 1, 2]
    assert set(labels[test_unseen]) == {3}
    assert att[labels].shape == original[labels].shape == (60, 2)


def test_the_same_command_again_does_nothing_and_another_is_refused(tmp_path: Path, folder: Path) -> None:
    settings = Settings("folder", tmp_path / "f.h5", folder, backbone_weights="random")
    extract(settings, QUIET)
    before = (tmp_path / "f.h5").stat()
    extract(settings, QUIET)
    assert (tmp_path / "f.h5").stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(
        UserError, match="is there already and holds other features: weights is random, not publ"
    ):
        extract(Settings("folder", tmp_path / "f.h5", folder), QUIET)
    table = folder / "classes.csv"
    table.write_text(table.read_text().replace("6,0", "8,0"))
    with pytest.raises(
        UserError, match="holds other features: labels, splits or class embeddings differ; choose"
    ):
        extract(settings, QUIET)
    with pytest.raises(UserError, match=r"--out .* is a folder; wanted the name of a file"):
        extract(replace(settings, out=tmp_path), QUIET)


def test_an_unfinished_file_says_in_words_what_it_is_of(tmp_path: Path, folder: Path) -> None:
    settings = Settings(
        "folder", tmp_path / "f.h5", folder, backbone="timm/test_resnet", backbone_weights="random"
    )
    bad = next((folder / "images").iterdir()) / "zz.png"
    bad.write_bytes(b"no image")
    try:
        with pytest.raises(UserError, match=r"zz\.png: not a readable image"):
            extract(settings, QUIET)
        with pytest.raises(UserError) as caught:
            extract(replace(settings, skip_bad_images=True), QUIET)
    finally:
        bad.unlink()
    assert "holds unfinished features of others: the images differ; remove it to start again" in str(
        caught.value
    )
    assert "{" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_seed": -1}, "--data-seed is -1; wanted 0 or more"),
        ({"distractors": -1}, "--distractors is -1; wanted 0 or more"),
        ({"batch_size": 0}, "--batch-size is 0; wanted a number above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, folder: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings("folder", tmp_path / "f.h5", folder, **options)


def test_a_benchmark_from_its_raw_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SUN's 14,340 images by the names that another machine gave them; features by a small backbone."""
    split = scipy.io.loadmat(real_split("sun"))
    labels = labels_for("sun", split)
    names = [str(n[0]) for n in split["allclasses_names"].ravel()]
    Image.new("RGB", (8, 8), "red").save(tmp_path / "one.jpg")
    files = []
    for i, label in enumerate(labels.tolist()):
        end = f"images/{names[label - 1][0]}/{names[label - 1]}/sun_{i:05d}.jpg"
        (tmp_path / "SUN_raw" / end).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "SUN_raw" / end).hardlink_to(tmp_path / "one.jpg")
        files.append(f"/BS/data/SUN/{end}")
    make_root(tmp_path, "sun", image_files=np.array(files, dtype=object)[:, None])
    settings = Settings(
        "sun", tmp_path / "sun.h5", tmp_path, images=tmp_path / "SUN_raw", backbone="tiny", batch_size=256
    )
    monkeypatch.setattr(
        "fastzsl.extract.load_backbone", lambda name, weights, image_size=None: tiny_backbone()
    )
    extract(settings, QUIET)
    data = hdf5_dataset(tmp_path / "sun.h5")
    truth = find_dataset(Sources("sun", tmp_path))
    for field in ("class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen"):
        assert torch.equal(getattr(data, field), getattr(truth, field)), field
    with h5py.File(tmp_path / "sun.h5") as file:
        np.testing.assert_array_equal(file["original_att"], split["original_att"].T)
        assert file["image_files"].asstr()[7].endswith(files[7][-30:])


@pytest.mark.slow
def test_a_killed_command_goes_on(tmp_path: Path, folder: Path) -> None:
    """The real command, killed by the system's SIGKILL once it has some images, twice; then it ends."""
    out = tmp_path / "f.h5"
    words = ["--dataset", "folder", "--root", str(folder), "--out", str(out), "--batch-size", "4"]
    command = [sys.executable, "-m", "fastzsl.extract", *words, "--backbone-weights", "random"]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while not partial_path(out).exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "going on with" in ended.stdout
    assert sorted(n for n in os.listdir(tmp_path) if "f.h5" in n) == ["f.h5"]
    whole = extract(Settings("folder", tmp_path / "g.h5", folder, backbone_weights="random"), QUIET)
    with h5py.File(out) as one, h5py.File(whole) as other:
        np.testing.assert_allclose(one["feature_map"][...], other["feature_map"][...], atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"dataset": "cub"}, "--dataset cub needs --images DIR"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(Settings("folder", Path("x"), Path("r")), **changes)  # type: ignore[arg-type]


def test_bfloat16_changes_the_features_by_a_few_per_cent(tmp_path: Path, folder: Path) -> None:
    paths = {}
    precisions: tuple[Literal["float32"], Literal["bfloat16"]] = ("float32", "bfloat16")
    for precision in precisions:
        settings = Settings("folder", tmp_path / f"{precision}.h5", folder, precision=precision)
        paths[str(precision)] = extract(settings, QUIET)
    with h5py.File(paths["float32"]) as one, h5py.File(paths["bfloat16"]) as other:
        exact = one["feature_map"][...].astype(np.float64)
        error = np.linalg.norm(other["feature_map"][...] - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.08, error
