"""Mutated files of every kind: no crash, no hang, no flood of memory, and nothing read that breaks the rules.

A reader either says in one `UserError` what is wrong or returns something whole; a crash of the process would
end the test run itself. 1,000 files by default, some 20,000 more with `-m campaign`; FASTZSL_FUZZ_FILES sets another
number for both.
"""

from __future__ import annotations

import io
import math
import os
import random
import resource
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import yaml
from PIL import Image

from fastzsl.data.descriptions.reading import read_descriptions
from fastzsl.data.download.unpack import unpack
from fastzsl.data.formats.embeddings import read_embeddings
from fastzsl.data.formats.folder import read_class_table, read_image
from fastzsl.data.formats.hdf5 import hdf5_dataset
from fastzsl.data.formats.xlsa17 import Known, read_published
from fastzsl.errors import UserError
from fastzsl.features.opening import load_regions
from fastzsl.features.store import checksum
from fastzsl.features.writer import FeatureWriter
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.methods.engines.checkpoint import last_step, save_state
from fastzsl.prediction.classes import OwnClasses
from fastzsl.training.run import RunFolder
from fastzsl.training.settings import Settings, load_settings

CLASSES, IMAGES, UNSEEN = 6, 24, 2
TINY = Known("T", IMAGES, CLASSES, UNSEEN)
LABELS = np.arange(IMAGES) % CLASSES
SPLIT = {  # classes 0 to 3 are seen, 4 and 5 unseen
    "trainval_loc": np.flatnonzero((LABELS < 4) & (np.arange(IMAGES) < 18)),
    "test_seen_loc": np.flatnonzero((LABELS < 4) & (np.arange(IMAGES) >= 18)),
    "test_unseen_loc": np.flatnonzero(LABELS >= 4),
}
ATT = np.random.default_rng(0).random((CLASSES, 3))
NAMES = [f"class {i}" for i in range(CLASSES)]
SLOWEST = 60.0
"""Seconds for one file. The process that reads binary files is ended after 3 s of computing, or 30 s on a machine that
does other things too."""


@dataclass(frozen=True)
class Kind:
    """A valid file, where it lies, and a reader that raises `AssertionError` if it gets nonsense."""

    content: bytes
    name: str
    read: Callable[[Path], None]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to a few wounds: bits, bytes, runs, cuts, repeats, or numbers at the edge of their type."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data))
        how = rng.randrange(8)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif how == 2:
            run = rng.randrange(1, 64)
            data[at : at + run] = bytes([rng.choice((0, 255))]) * run
        elif how == 3:
            del data[at:]
        elif how == 4:
            del data[at : at + rng.randrange(1, 200)]
        elif how == 5:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        elif how == 6:
            size = rng.choice((2, 4, 8))
            number = rng.choice((-1, 0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 9)))
            data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    return bytes(data)


def csv_kind() -> Kind:
    rows = ["class,split,a,b,c"]
    rows += [f"{n},{'unseen' if i > 3 else 'seen'},{ATT[i, 0]:.3f},{i},-1e-3" for i, n in enumerate(NAMES)]

    def read(path: Path) -> None:
        table = read_class_table(path)
        assert len(table.names) == len(set(table.names)) == len(table.values) > 0
        assert table.splits is None or set(table.splits) <= {"seen", "unseen"}
        assert table.values.shape[1] == len(table.attributes) > 0
        assert np.isfinite(table.values).all()

    return Kind("\n".join(rows).encode(), "classes.csv", read)


def mat_variables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    split = {name: (part + 1)[:, None].astype(np.uint16) for name, part in SPLIT.items()}
    split["att"] = split["original_att"] = ATT.T
    split["allclasses_names"] = np.array(NAMES, dtype=object)[:, None]
    return split, {"labels": (LABELS + 1)[:, None].astype(np.uint8), "features": np.ones((2, IMAGES))}


def mat_kind(folder: Path, which: str, compressed: bool) -> Kind:
    split, labels = mat_variables()
    folder.mkdir()
    scipy.io.savemat(folder / "att_splits.mat", split, do_compression=compressed)
    scipy.io.savemat(folder / "res101.mat", labels, do_compression=compressed)

    def read(path: Path) -> None:
        assert path.parent == folder
        got = read_published(folder, TINY)
        assert got.att.shape[0] == len(got.class_names) == CLASSES
        assert torch.isfinite(got.att).all()
        assert got.original_att is None or torch.isfinite(got.original_att).all()
        check_parts(got.split.trainval, got.split.test_seen, got.split.test_unseen, got.labels, IMAGES)

    return Kind((folder / which).read_bytes(), str(folder / which), read)


def check_parts(
    trainval: np.ndarray, test_seen: np.ndarray, test_unseen: np.ndarray, labels: np.ndarray, count: int
) -> None:
    """What the splits promise, counted in another way than the readers do."""
    together = np.concatenate([trainval, test_seen, test_unseen])
    assert len(labels) == count
    assert set(together.tolist()) <= set(range(count))
    assert len(set(together.tolist())) == len(together), "an image is used twice"
    seen, unseen = {*labels[trainval].tolist()}, {*labels[test_unseen].tolist()}
    assert not seen & unseen
    assert {*labels[test_seen].tolist()} <= seen


def hdf5_arrays() -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {**SPLIT, "labels": LABELS, "att": ATT, "original_att": ATT}
    arrays["allclasses_names"] = np.array(NAMES, dtype=h5py.string_dtype())
    return arrays


MAPS = np.random.default_rng(1).standard_normal((IMAGES, 3, 2, 2)).astype(np.float16)


def ours_kind(folder: Path) -> Kind:
    path = folder / "ours.h5"
    with FeatureWriter(path, (IMAGES, 3, 2, 2), "float16", {}, hdf5_arrays()) as writer:
        writer.write(np.arange(IMAGES), MAPS)
        writer.finish()
    return Kind(path.read_bytes(), "mutated-ours.h5", read_hdf5_dataset)


def foreign_kind(folder: Path) -> Kind:
    path = folder / "foreign.h5"
    with h5py.File(path, "w") as file:
        for name, values in hdf5_arrays().items():
            file[name] = values
        file.create_dataset("feature_map", data=MAPS, chunks=(5, 3, 2, 2), compression="gzip")
    return Kind(path.read_bytes(), "mutated-foreign.h5", read_hdf5_dataset)


def read_hdf5_dataset(path: Path) -> None:
    data = hdf5_dataset(path)
    assert torch.isfinite(data.class_embeddings).all()
    assert len(data.class_embeddings) == len(data.class_names)
    parts = (data.trainval.numpy(), data.test_seen.numpy(), data.test_unseen.numpy())
    count = len(data.labels)
    check_parts(*parts, data.labels.numpy(), count)
    regions = data.read_regions(torch.arange(min(count, 30)))
    assert torch.isfinite(regions).all()
    assert data.regions is not None
    assert regions.shape[2] == data.regions.feature_shape[0]
    if "checksum" in path.read_bytes().decode("latin-1") and regions.shape == (IMAGES, 4, 3):
        with h5py.File(path, locking=False) as file:
            if "checksum" in file:
                for row, mark in zip(regions.transpose(1, 2).contiguous().numpy(), file["checksum"][...]):
                    assert checksum(row.tobytes()) == mark, "features that nobody wrote"


def matlab73_kind(folder: Path) -> Kind:
    folder.mkdir()
    split, labels = mat_variables()
    scipy.io.savemat(folder / "res101.mat", labels)
    with h5py.File(folder / "att_splits.mat", "w", userblock_size=512) as file:
        cells = []
        for i, name in enumerate(NAMES):
            codes = np.array([[ord(c)] for c in name], dtype=np.uint16)
            cells.append(file.create_dataset(f"#refs#/{i}", data=codes).ref)
        file.create_dataset("allclasses_names", data=np.array(cells, dtype=h5py.ref_dtype)[None])
        for name, value in split.items():
            if name != "allclasses_names":
                file.create_dataset(name, data=value.T)

    def read(path: Path) -> None:
        got = read_published(folder, TINY)
        assert torch.isfinite(got.att).all()
        check_parts(got.split.trainval, got.split.test_seen, got.split.test_unseen, got.labels, IMAGES)

    return Kind((folder / "att_splits.mat").read_bytes(), str(folder / "att_splits.mat"), read)


def image_kind(form: str) -> Kind:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)

    def read(path: Path) -> None:
        image = read_image(path)
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= 100_000_000
        if image.width * image.height < 10**6:
            np.asarray(image).sum()

    return Kind(content.getvalue(), f"image.{form.lower()}", read)


def npz_kind() -> Kind:
    content = io.BytesIO()
    np.savez_compressed(content, names=np.array(NAMES), embeddings=ATT)

    def read(path: Path) -> None:
        values, _ = read_embeddings(path, NAMES)
        assert len(values) == CLASSES
        assert torch.isfinite(values).all()

    return Kind(content.getvalue(), "words.npz", read)


def archive_kind(name: str) -> Kind:
    content = io.BytesIO()
    if name.endswith("zip"):
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("d/x.txt", b"x" * 300)
            packed.writestr("y.txt", b"y")
    else:
        with tarfile.open(fileobj=content, mode="w:gz" if name.endswith("gz") else "w") as tape:
            for entry in ("d/x.txt", "y.txt"):
                info = tarfile.TarInfo(entry)
                info.size = 300
                tape.addfile(info, io.BytesIO(b"z" * 300))

    def read(path: Path) -> None:
        out = path.parent / "unpacked" / "inner"
        unpack(path, out, most_bytes=1 << 20)
        made = [p for p in path.parent.rglob("*") if p.is_file() and p != path and p.suffix == ".txt"]
        assert all(out in p.parents and not p.is_symlink() for p in made)

    return Kind(content.getvalue(), name, read)


def spreadsheet_kind(encoding: str) -> Kind:
    rows = ["Latin name;weight (g);Bird;set;wings"]
    rows += [
        f"Aves {i};{i},5;{n};{'test' if i > 3 else 'train'};{'yes' if i else 'no'}"
        for i, n in enumerate(NAMES)
    ]

    def read(path: Path) -> None:
        sheet = read_descriptions(path, NAMES)
        assert sheet.values.shape == (len(sheet.names), len(sheet.attributes))
        assert all(sheet.names)
        assert sheet.values.shape[1] > 0
        assert not np.isinf(sheet.values).any()
        assert sheet.splits is None or set(sheet.splits) <= {"seen", "unseen"}
        assert len(set(sheet.attributes)) == len(sheet.attributes)

    return Kind("\n".join(rows).encode(encoding), "sheet.csv", read)


def new_classes_kind(folder: Path) -> Kind:
    """The table that predict's --classes takes, against a run with the attributes a, b, c."""
    own = folder / "own.csv"
    own.write_text("class,split,a,b,c\nx,seen,1,2,3\ny,unseen,3,2,1\n")
    run = OwnClasses(read_class_table(own), 0.1)

    def read(path: Path) -> None:
        got = run.candidates(path)
        assert got.embeddings.shape == (len(got.names), 3)
        assert len(set(got.names)) == len(got.names) > 0
        assert torch.isfinite(got.embeddings).all()
        assert not got.bias.any()

    return Kind(b"class,c,a,b\nnew 1,0.5,-2,1e-3\nnew 2,0,0,7\n", "new.csv", read)


def settings_kind() -> Kind:
    def read(path: Path) -> None:
        settings = load_settings(path)
        assert isinstance(settings.run.seed, int)
        for value in vars(settings.method).values():
            assert isinstance(value, str | int | float)

    return Kind(yaml.safe_dump(Settings().as_dict(), sort_keys=False).encode(), "config.yaml", read)


def gamma_kind(folder: Path) -> Kind:
    def read(path: Path) -> None:
        assert math.isfinite(RunFolder(path.parent).load_gamma())

    return Kind(b'{\n  "gamma": 0.125,\n  "folds": 3\n}\n', "gamma.json", read)


def model_of(classes: int = 3) -> AttendedAutoencoder:
    return AttendedAutoencoder(4, classes, hidden=2)


def weights_kind(folder: Path) -> Kind:
    run, written = RunFolder(folder), model_of()
    run.save_model(written)

    def read(path: Path) -> None:
        got = model_of()
        RunFolder(path.parent).load_model(got)
        for name, tensor in written.state_dict().items():
            assert torch.equal(got.state_dict()[name], tensor), "weights that nobody wrote"

    return Kind(run.model.read_bytes(), "model.safetensors", read)


def checkpoint_kind(folder: Path) -> Kind:
    save_state(
        folder / "checkpoint.pt",
        {"step": 3, "identity": {}, "parts": {"model": model_of().state_dict()}},
    )

    def read(path: Path) -> None:
        assert last_step(path) >= 0

    return Kind((folder / "checkpoint.pt").read_bytes(), "checkpoint.pt", read)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "csv": lambda folder: csv_kind(),
    "mat, splits": lambda folder: mat_kind(folder / "a", "att_splits.mat", False),
    "mat, splits compressed": lambda folder: mat_kind(folder / "b", "att_splits.mat", True),
    "mat, labels": lambda folder: mat_kind(folder / "c", "res101.mat", False),
    "mat 7.3": lambda folder: matlab73_kind(folder / "d"),
    "h5, ours": ours_kind,
    "h5, of others": foreign_kind,
    "npz": lambda folder: npz_kind(),
    "jpeg": lambda folder: image_kind("JPEG"),
    "png": lambda folder: image_kind("PNG"),
    "gif": lambda folder: image_kind("GIF"),
    "webp": lambda folder: image_kind("WEBP"),
    "tiff": lambda folder: image_kind("TIFF"),
    "bmp": lambda folder: image_kind("BMP"),
    "zip": lambda folder: archive_kind("a.zip"),
    "tar": lambda folder: archive_kind("a.tar"),
    "tgz": lambda folder: archive_kind("a.tgz"),
    "spreadsheet": lambda folder: spreadsheet_kind("utf-8"),
    "spreadsheet, utf-16": lambda folder: spreadsheet_kind("utf-16"),
    "predict's new classes": new_classes_kind,
    "run, config.yaml": lambda folder: settings_kind(),
    "run, gamma.json": gamma_kind,
    "run, weights": weights_kind,
    "run, checkpoint": checkpoint_kind,
}


def attack(kind: Kind, folder: Path, seed: int, files: int) -> tuple[int, int]:
    """Read `files` mutations; returns how many were refused and how many were read."""
    rng = random.Random(seed)
    path = folder / kind.name
    refused = 0
    for number in range(files):
        content = mutate(kind.content, rng)
        path.write_bytes(content)
        start, message = time.perf_counter(), ""
        try:
            kind.read(path)
        except UserError as error:
            message = str(error)
            refused += 1
        except BaseException:
            print(f"file {number} of seed {seed}, {len(content)} bytes, kept as {path}")
            raise
        assert "\n" not in message, f"file {number} of seed {seed}: more than one line"
        took = time.perf_counter() - start
        assert took < SLOWEST, f"file {number} of seed {seed} took {took:.0f} s"
    return refused, files - refused


@pytest.mark.parametrize("name", KINDS)
def test_the_files_are_read_before_they_are_mutated(tmp_path: Path, name: str) -> None:
    kind = KINDS[name](tmp_path)
    path = tmp_path / kind.name
    path.write_bytes(kind.content)
    kind.read(path)


def run(tmp_path: Path, name: str, seed: int, files: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, read = attack(KINDS[name](tmp_path), tmp_path, seed, files)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    print(f"{name}: {refused} refused, {read} read, {grown:.0f} MiB more memory")
    assert refused > files // 20, "hardly a mutation did harm: is the reader looking?"
    assert sys.platform != "linux" or grown < 1024, f"{grown:.0f} MiB"


@pytest.mark.parametrize("name", KINDS)
def test_mutated_files(tmp_path: Path, name: str, seed: int) -> None:
    run(tmp_path, name, seed, int(os.environ.get("FASTZSL_FUZZ_FILES") or 1000) // len(KINDS))


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("name", KINDS)
def test_many_mutated_files(tmp_path: Path, name: str, seed: int) -> None:
    share = int(os.environ.get("FASTZSL_FUZZ_FILES") or 1000 * len(KINDS)) // len(KINDS)
    run(tmp_path, name, seed, share // 2 if name.startswith(("h5", "mat")) else share)


def test_a_feature_file_whose_features_were_swapped_is_refused(tmp_path: Path) -> None:
    """Each image's checksum is its own: rows in each other's place are not read as theirs."""
    kind = ours_kind(tmp_path)
    one, other = MAPS[3].tobytes(), MAPS[4].tobytes()
    swapped = kind.content.replace(one, b"#" * len(one)).replace(other, one).replace(b"#" * len(one), other)
    (tmp_path / "swapped.h5").write_bytes(swapped)
    with pytest.raises(UserError, match="image 3 are not those that were written"):
        load_regions(tmp_path / "swapped.h5")
