"""The identity of a data set: equal for equal content wherever it lies, another one when anything in it differs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.find import with_features
from fastzsl.data.formats.folder import image_folder
from fastzsl.data.formats.hdf5 import dataset_arrays, hdf5_dataset
from fastzsl.data.formats.shapes import shapes
from fastzsl.data.formats.xlsa17 import xlsa17
from fastzsl.errors import UserError
from fastzsl.features.extraction import cache_path, extract_features
from fastzsl.features.sources import MemoryRegions
from tests.data.xlsa17_files import make_root
from tests.features.feature_files import tiny_backbone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes of five small images."""
    folder = tmp_path / "animals"
    rng = np.random.default_rng(0)
    lines = ["class,split,legs,size"]
    for i, (name, split) in enumerate([("ant", "seen"), ("bee", "seen"), ("cat", "seen"), ("dog", "unseen")]):
        (folder / "images" / name).mkdir(parents=True)
        for k in range(5):
            pixels = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{k}.png")
        lines.append(f"{name},{split},{i + 2},{0.5 * i}")
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_copies_at_other_places_and_under_other_names_are_the_same(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "elsewhere" / "zoo", copy_function=shutil.copy2)
    one, other = image_folder(root), image_folder(tmp_path / "elsewhere" / "zoo")
    assert one.identity() == other.identity()
    assert one.fingerprint == other.fingerprint
    assert len(one.identity()) == 64
    assert one.identity() is one.identity(), "computed once"


def replaced_image(root: Path) -> None:
    path = root / "images" / "bee" / "2.png"
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # the same name and size
    assert path.stat().st_size == status.st_size


def renamed_image(root: Path) -> None:
    (root / "images" / "bee" / "2.png").rename(root / "images" / "bee" / "9.png")


def removed_image(root: Path) -> None:
    (root / "images" / "dog" / "4.png").unlink()


def moved_image(root: Path) -> None:
    (root / "images" / "bee" / "2.png").rename(root / "images" / "cat" / "9.png")


def edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        table = (root / "classes.csv").read_text()
        assert old in table
        (root / "classes.csv").write_text(table.replace(old, new))

    return edit


def renamed_class(root: Path) -> None:
    edited("ant,", "gnu,")(root)
    (root / "images" / "ant").rename(root / "images" / "gnu")


@pytest.mark.parametrize(
    "change",
    [
        replaced_image, renamed_image, removed_image, moved_image, renamed_class,
        edited("bee,seen,3,0.5", "bee,seen,3,0.50001"), edited("cat,seen", "cat,unseen"),
    ],
)  # fmt: skip
def test_every_change_of_a_folder_changes_it(root: Path, change: Callable[[Path], None]) -> None:
    before = image_folder(root).identity()
    change(root)
    assert image_folder(root).identity() != before


def test_it_depends_on_the_split_and_not_on_extracted_features(root: Path) -> None:
    data = image_folder(root)
    assert data.identity() != image_folder(root, seed=5).identity()
    count = len(data.labels)
    assert data.with_regions(MemoryRegions(torch.randn(count, 5, 2, 2))).identity() == data.identity()


def memory(regions: torch.Tensor) -> ZeroShotDataset:
    return ZeroShotDataset(
        name="memory", class_names=("a", "b", "c"), class_embeddings=torch.eye(3), seen=torch.tensor([0, 1]),
        unseen=torch.tensor([2]), labels=torch.tensor([0, 0, 1, 1, 2]), trainval=torch.tensor([0, 2]),
        test_seen=torch.tensor([1, 3]), test_unseen=torch.tensor([4]), regions=MemoryRegions(regions),
    )  # fmt: skip


def test_without_a_fingerprint_every_number_counts() -> None:
    maps = torch.randn(5, 4, 2, 2)
    assert memory(maps).identity() == memory(maps.clone()).identity()
    changed = maps.clone()
    changed[3, 1, 0, 1] += 1
    assert memory(maps).identity() != memory(changed).identity()


@pytest.mark.parametrize(
    "field", ["class_names", "class_embeddings", "labels", "trainval", "test_seen", "image_ids"]
)
def test_every_field_counts(field: str) -> None:
    data = memory(torch.randn(5, 4, 2, 2))
    other = {
        "class_names": ("a", "b", "d"),
        "class_embeddings": torch.eye(3) * 2,
        "labels": torch.tensor([0, 0, 1, 0, 2]),
        "trainval": torch.tensor([2, 0]),
        "test_seen": torch.tensor([3]),
        "image_ids": torch.tensor([0, 1, 2, 4, 3]),
    }[field]
    assert (
        replace(data, fingerprint="f").identity()
        != replace(data, fingerprint="f", **{field: other}).identity()
    )


def test_shapes_differ_by_seed_and_distractors() -> None:
    assert len({shapes(s, n).identity() for s in (0, 1) for n in (1, 2)}) == 4
    assert shapes(3, 1).identity() == shapes(3, 1).identity()


def test_feature_files_count_by_their_features(root: Path, tmp_path: Path) -> None:
    data, backbone = image_folder(root), tiny_backbone()
    assert data.images is not None

    def made(name: str, scale: float = 1.0) -> ZeroShotDataset:
        extract_features(
            data.images, tiny_backbone(scale), tmp_path / name, fingerprint=data.fingerprint,
            arrays=dataset_arrays(data),
        )  # fmt: skip
        return hdf5_dataset(tmp_path / name)

    first = made("one.h5")
    os.utime(tmp_path / "one.h5", (1, 1))
    assert made("two.h5").identity() == first.identity() == hdf5_dataset(tmp_path / "one.h5").identity()
    assert made("three.h5", 2.0).identity() != first.identity()
    assert backbone.feature_dim == 5


def test_feature_files_of_others_count_by_size_and_time(root: Path, tmp_path: Path) -> None:
    arrays = dataset_arrays(image_folder(root))
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["feature_map"] = np.random.default_rng(0).random((20, 3, 2, 2), dtype=np.float32)
        for name, values in arrays.items():
            file[name] = values
    before = hdf5_dataset(path)
    shutil.copy2(path, tmp_path / "copy.h5")
    assert hdf5_dataset(tmp_path / "copy.h5").identity() == before.identity()
    with h5py.File(path, "r+") as file:
        file["feature_map"][0] = 0
    assert hdf5_dataset(path).identity() != before.identity()


def test_benchmarks_count_by_features_and_split(tmp_path: Path) -> None:
    make_root(tmp_path / "a", "awa1")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    data = xlsa17("awa1", tmp_path / "a")
    assert data.identity() == xlsa17("awa1", tmp_path / "b").identity()
    assert data.identity() != xlsa17("awa1", tmp_path / "a", class_embeddings="original_att").identity()
    features = np.random.default_rng(2).random((4, 30475), dtype=np.float32)
    make_root(tmp_path / "b", "awa1", features=features)
    assert data.identity() != xlsa17("awa1", tmp_path / "b").identity()


def test_the_cache_does_not_confuse_data_sets(root: Path, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    data = image_folder(root)
    with_features(data, backbone, "random")
    replaced_image(root)
    other = image_folder(root)
    path = cache_path(other.fingerprint, backbone, "random")
    assert not path.exists()
    shutil.copy(cache_path(data.fingerprint, backbone, "random"), path)  # under the other one's name
    with pytest.raises(UserError, match="holds other features: the images differ; remove it"):
        with_features(other, backbone, "random")
