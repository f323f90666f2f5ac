"""Files as the dense-attention papers' scripts write them: read once and in order, and ours are read by their steps."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fastzsl.data.formats.hdf5 import hdf5_dataset
from fastzsl.errors import UserError
from fastzsl.extract import Settings, extract
from fastzsl.features import repacked, store
from fastzsl.features.opening import load_regions
from fastzsl.features.sources import MemoryRegions
from fastzsl.features.store import FileRegions


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """gzip, 50 images a chunk, and a last chunk that is not full."""
    maps = np.random.default_rng(0).standard_normal((120, 6, 3, 3)).astype(np.float32)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.create_dataset("feature_map", data=maps, chunks=(50, 6, 3, 3), compression="gzip")
    return tmp_path / "theirs.h5", maps


def regions_of(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(maps).flatten(2).transpose(1, 2)


def test_a_small_file_is_read_into_memory(theirs: tuple[Path, np.ndarray]) -> None:
    source = load_regions(theirs[0])
    assert isinstance(source, MemoryRegions)
    assert torch.equal(source.regions(torch.arange(120)), regions_of(theirs[1]))


def test_a_large_file_is_inflated_once_into_the_cache(
    theirs: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, maps = theirs
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(repacked, "BLOCK_BYTES", 60 * maps[0].nbytes)
    read: list[int] = []
    blocks = repacked._blocks
    monkeypatch.setattr(repacked, "_blocks", lambda *a: (read.append(b[0]) or b for b in blocks(*a)))
    source = load_regions(path)
    assert isinstance(source, FileRegions)
    assert read == [0, 50, 100], "in order, each chunk once"
    picked = torch.randperm(120)
    assert torch.equal(source.regions(picked), regions_of(maps)[picked])
    assert torch.equal(load_regions(path).regions(picked), regions_of(maps)[picked])
    assert read == [0, 50, 100], "the next program finds it in the cache"
    with h5py.File(path, "r+") as file:
        file["feature_map"][7] = 0
    assert load_regions(path).regions([7]).abs().sum() == 0, "a changed file is read anew"


@pytest.mark.parametrize("in_memory", [True, False])
def test_numbers_that_are_not_finite_are_named(
    theirs: tuple[Path, np.ndarray], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 1 << 30 if in_memory else 0)
    with h5py.File(theirs[0], "r+") as file:
        file["feature_map"][61, 2, 0, 1] = np.nan
    with pytest.raises(UserError, match=r"theirs\.h5: the features of image 61 have NaN or infinite entries"):
        load_regions(theirs[0])


def peers_load(path: Path) -> dict[str, torch.Tensor]:
    """The steps of the loaders of DAZLE and its successors: everything as an array, then as float tensors."""
    with h5py.File(path, "r") as hf:
        features = np.array(hf.get("feature_map"))
        labels = np.array(hf.get("labels"))
        trainval, seen, unseen = (
            np.array(hf.get(n)) for n in ("trainval_loc", "test_seen_loc", "test_unseen_loc")
        )
        found = {
            "att": torch.from_numpy(np.array(hf.get("att"))).float(),
            "normalize_att": torch.from_numpy(np.array(hf.get("original_att"))).float() / 100,
            "w2v_att": torch.from_numpy(np.array(hf.get("w2v_att"))).float(),
        }
    for name, part in (("train", trainval), ("test_seen", seen), ("test_unseen", unseen)):
        found[f"{name}_features"] = torch.from_numpy(features[part])  # computed with as they are
        found[f"{name}_labels"] = torch.from_numpy(labels[part]).long()
    return found


def test_the_papers_own_loaders_read_what_extract_writes(tmp_path: Path) -> None:
    from fastzsl.data.formats.shapes import shapes

    data = shapes(1, 0)
    vectors = np.random.default_rng(0).standard_normal((20, 5))
    order = np.random.default_rng(1).permutation(20)  # rows are matched by name
    np.savez(tmp_path / "words.npz", names=np.array(data.attribute_names)[order], embeddings=vectors[order])
    settings = Settings(
        "shapes", tmp_path / "f.h5", data_seed=1, distractors=0, dtype="float32", backbone="resnet18",
        backbone_weights="random", image_size=64, attribute_vectors=tmp_path / "words.npz", device="cpu",
    )  # fmt: skip
    extract(settings)
    theirs, ours = peers_load(tmp_path / "f.h5"), hdf5_dataset(tmp_path / "f.h5")
    assert theirs["train_features"].dtype == torch.float32
    assert theirs["train_features"].shape == (len(data.trainval), 512, 2, 2)
    layer = torch.nn.Linear(512, 3)
    assert layer(theirs["test_seen_features"].mean((2, 3))).isfinite().all(), "their evaluation is in float32"
    assert torch.equal(theirs["att"], data.class_embeddings)
    torch.testing.assert_close(theirs["w2v_att"], torch.from_numpy(vectors).float())
    assert theirs["w2v_att"].shape[0] == theirs["att"].shape[1]
    for name, part in (
        ("train", data.trainval),
        ("test_seen", data.test_seen),
        ("test_unseen", data.test_unseen),
    ):
        assert torch.equal(theirs[f"{name}_labels"], data.labels[part])
        regions = ours.read_regions(part)
        assert torch.equal(regions, theirs[f"{name}_features"].flatten(2).transpose(1, 2))


def test_vectors_of_other_attributes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", names=np.array(["wing"]), embeddings=np.ones((1, 5)))
    with pytest.raises(UserError, match=r"words\.npz: no embedding of class circle"):
        extract(
            Settings(
                "shapes",
                tmp_path / "f.h5",
                backbone="resnet18",
                backbone_weights="random",
                image_size=64,
                attribute_vectors=tmp_path / "words.npz",
            )
        )
