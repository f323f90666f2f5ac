"""Reading feature files: right numbers from every layout, lazily, and one line for every damaged file."""

from __future__ import annotations

import copy
import gc
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.features import store as features
from fastzsl.features.opening import load_regions
from fastzsl.features.sources import MemoryRegions
from fastzsl.features.store import FileRegions
from fastzsl.features.writer import FeatureWriter
from fastzsl.files.hdf5 import read_hdf5
from tests.features.feature_files import write_maps


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((9, 4, 2, 3)).astype(np.float16)


LAYOUTS = {
    "a chunk an image": {"chunks": (1, 4, 2, 3)},
    "contiguous": {},
    "several images a chunk": {"chunks": (4, 4, 2, 3)},
    "compressed": {"chunks": (1, 4, 2, 3), "compression": "gzip"},
    "cut across images": {"chunks": (3, 2, 2, 1), "shuffle": True, "compression": "lzf"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_layout_and_type_gives_the_numbers_that_were_stored(
    tmp_path: Path,
    maps: np.ndarray,
    layout: str,
    dtype: str,
    in_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 1 << 20 if in_memory else 0)
    write_maps(tmp_path / "f.h5", maps.astype(dtype), **LAYOUTS[layout])
    source = load_regions(tmp_path / "f.h5")
    wanted = [7, 0, 3, 3, 8]
    got = source.regions(torch.tensor(wanted))
    assert source.feature_shape == (4, 2, 3)
    assert len(source) == 9
    np.testing.assert_array_equal(got.numpy(), maps[wanted].reshape(5, 4, 6).transpose(0, 2, 1))


def test_only_small_files_are_read_whole(
    tmp_path: Path, maps: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_maps(tmp_path / "f.h5", maps, chunks=(1, 4, 2, 3))
    assert isinstance(load_regions(tmp_path / "f.h5"), MemoryRegions)
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", maps.nbytes - 1)
    assert isinstance(load_regions(tmp_path / "f.h5"), FileRegions)


def test_a_copy_or_a_pickle_of_a_source_has_its_own_descriptor(
    tmp_path: Path, maps: np.ndarray, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 0)
    write_maps(tmp_path / "f.h5", maps, **LAYOUTS["a chunk an image"])
    source = load_regions(tmp_path / "f.h5")
    for other in (copy.copy(source), copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert torch.equal(other.regions([1, 3]), source.regions([1, 3]))
        del other
        gc.collect()
        with open(tmp_path / "next", "wb") as file:  # takes the lowest free number
            assert torch.equal(source.regions([0]), torch.from_numpy(maps[:1]).flatten(2).transpose(1, 2))
            file.write(b"x")


def test_every_cut_is_found(tmp_path: Path, maps: np.ndarray) -> None:
    whole = tmp_path / "whole.h5"
    with FeatureWriter(whole, maps.shape, "float16", {}) as writer:  # type: ignore[arg-type]
        writer.write(np.arange(9), maps)
        writer.finish()
    content = whole.read_bytes()
    for length in range(0, len(content), 61):
        (tmp_path / "cut.h5").write_bytes(content[:length])
        with pytest.raises(UserError, match="not a whole HDF5 file"):
            load_regions(tmp_path / "cut.h5")


def test_a_changed_byte_of_an_image_is_found(tmp_path: Path, maps: np.ndarray) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, maps.shape, "float16", {}) as writer:  # type: ignore[arg-type]
        writer.write(np.arange(9), maps)
        writer.finish()
    content = bytearray(path.read_bytes())
    content[content.find(maps[5].tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="image 5 are not those that were written"):
        load_regions(path)


@pytest.mark.parametrize("layout", ["a chunk an image", "compressed"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_name_the_image(
    tmp_path: Path, maps: np.ndarray, layout: str, value: float
) -> None:
    maps[6, 1, 1, 1] = value
    write_maps(tmp_path / "f.h5", maps, **LAYOUTS[layout])
    with pytest.raises(UserError, match="image 6 have NaN or infinite"):
        load_regions(tmp_path / "f.h5").regions(torch.tensor([2, 6]))


def test_data_in_other_files_is_refused(tmp_path: Path, maps: np.ndarray) -> None:
    write_maps(tmp_path / "secret.h5", maps, chunks=(1, 4, 2, 3))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["feature_map"] = h5py.ExternalLink("secret.h5", "feature_map")
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["feature_map"] = h5py.SoftLink("/else/feature_map")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        raw = tmp_path / "secret.bin"
        raw.write_bytes(maps.tobytes())
        file.create_dataset("feature_map", maps.shape, maps.dtype, external=[(str(raw), 0, maps.nbytes)])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(maps.shape, maps.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "feature_map", maps.shape)
        file.create_virtual_dataset("feature_map", layout)
    for name, said in {
        "link": "external link", "soft": "soft link", "raw": "another file", "virtual": "another file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said):
            load_regions(tmp_path / f"{name}.h5")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (np.zeros((3, 4)), r"\(3, 4\)"),
        (np.zeros((0, 4, 2, 2)), r"\(0, 4, 2, 2\)"),
        (np.zeros((3, 4, 2, 2), dtype=np.int16), "int16"),
        (np.array([b"x"] * 4).reshape(1, 2, 2, 1), r"S1"),
    ],
)
def test_other_shapes_and_types_are_named(tmp_path: Path, found: np.ndarray, said: str) -> None:
    write_maps(tmp_path / "f.h5", found)
    with pytest.raises(UserError, match=f"feature_map is .*{said}.*; wanted floating numbers"):
        load_regions(tmp_path / "f.h5")


def test_a_file_of_another_data_set_and_files_that_are_none(tmp_path: Path, maps: np.ndarray) -> None:
    write_maps(tmp_path / "f.h5", maps)
    with pytest.raises(UserError, match="features of 9 images; wanted 10: a file of another data set"):
        load_regions(tmp_path / "f.h5", 10)
    with pytest.raises(UserError, match="no file"):
        load_regions(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        load_regions(tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(UserError, match="feature_map is nothing"):
        load_regions(tmp_path / "empty.h5")


def test_a_death_of_the_reading_process_is_told_and_mended(tmp_path: Path, maps: np.ndarray) -> None:
    from fastzsl.files.sandbox import _reader

    write_maps(tmp_path / "f.h5", maps)
    load_regions(tmp_path / "f.h5")
    assert _reader._process is not None
    _reader._process.kill()
    _reader._process.wait()
    assert len(load_regions(tmp_path / "f.h5")) == 9


def test_a_truncation_under_an_open_file_is_found(
    tmp_path: Path, maps: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 0)
    write_maps(tmp_path / "f.h5", maps)
    source = load_regions(tmp_path / "f.h5")
    with open(tmp_path / "f.h5", "rb+") as file:
        file.truncate(500)
    with pytest.raises(UserError, match="cut short"):
        source.regions(torch.arange(9))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Batches of a 400 MB file are read; the process grows by far less."""
    import resource

    path, shape = tmp_path / "f.h5", (2000, 2048, 7, 7)
    if shutil.disk_usage(tmp_path).free < 1 << 30:
        pytest.skip("needs 1 GiB of disk")
    with FeatureWriter(path, shape, "float16", {}) as writer:
        row = np.ones((1, *shape[1:]), dtype=np.float16)
        for index in range(shape[0]):
            writer.write(np.array([index]), row)
        writer.finish()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    contents = read_hdf5(path, ["checksum"], maps="feature_map")
    assert contents.maps is not None
    source = FileRegions(path, contents.maps, contents.arrays["checksum"])
    for batch in torch.randperm(shape[0], generator=torch.Generator().manual_seed(0)).split(64):
        assert bool((source.regions(batch) == 1).all())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100e6, f"{grown / 1e6:.0f} MB"
