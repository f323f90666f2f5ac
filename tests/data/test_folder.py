"""The image folder: read as documented, and every fault named in one line."""

from __future__ import annotations

import csv
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from fastzsl.data.formats.folder import image_folder, read_image
from fastzsl.data.formats.hdf5 import dataset_arrays, hdf5_dataset
from fastzsl.data.formats.xlsa17_writer import write_xlsa17
from fastzsl.errors import UserError
from fastzsl.features.extraction import extract_features
from fastzsl.features.opening import load_regions
from tests.features.feature_files import tiny_backbone

CLASSES = {"ant": "seen", "bee": "seen", "cat": "seen", "dog": "unseen"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes of five small images."""
    rng = np.random.default_rng(0)
    rows = [["class", "split", "legs", "size"]]
    for i, (name, split) in enumerate(CLASSES.items()):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(5):
            pixels = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{k}.png")
        rows.append([name, split, str(i + 2), str(0.5 * i * i)])
    write_table(tmp_path, rows)
    return tmp_path


def write_table(root: Path, rows: list[list[str]]) -> None:
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def rows_of(root: Path) -> list[list[str]]:
    return [line.split(",") for line in (root / "classes.csv").read_text().splitlines()]


def change(root: Path, row: int, column: int, value: str) -> None:
    rows = rows_of(root)
    rows[row][column] = value
    write_table(root, rows)


def test_splits_labels_and_attributes(root: Path) -> None:
    data = image_folder(root)
    assert data.class_names == ("ant", "bee", "cat", "dog")
    assert data.attribute_names == ("legs", "size")
    assert data.class_embeddings.tolist() == [[2, 0], [3, 0.5], [4, 2], [5, 4.5]]
    assert data.seen.tolist() == [0, 1, 2]
    assert data.unseen.tolist() == [3]
    assert torch.bincount(data.labels[data.trainval]).tolist() == [4, 4, 4]
    assert torch.bincount(data.labels[data.test_seen]).tolist() == [1, 1, 1]
    assert data.labels[data.test_unseen].tolist() == [3] * 5
    assert data.images is not None
    for index, label in enumerate(data.labels.tolist()):
        assert Path(data.images.describe(index)).parent.name == data.class_names[label]
        assert data.images.image(index).size == (9, 8)


def test_the_split_follows_the_seed_and_nothing_else(root: Path) -> None:
    assert image_folder(root, 1).test_seen.tolist() == image_folder(root, 1).test_seen.tolist()
    drawn = {tuple(image_folder(root, seed).test_seen.tolist()) for seed in range(8)}
    assert len(drawn) > 1


def test_fingerprint_changes_with_an_image(root: Path) -> None:
    before = image_folder(root).fingerprint
    Image.new("RGB", (30, 30)).save(root / "images" / "ant" / "0.png")
    assert image_folder(root).fingerprint != before


def test_names_that_are_not_utf8_are_read(root: Path, tmp_path: Path) -> None:
    folder = os.fsencode(root / "images" / "ant")
    os.rename(os.path.join(folder, b"0.png"), os.path.join(folder, b"caf\xe9.png"))
    data = image_folder(root)
    assert data.images is not None
    index = next(i for i in range(len(data.labels)) if "caf" in data.images.describe(i))
    assert data.images.image(index).size == (9, 8)
    path = tmp_path / "f.h5"
    extract_features(data.images, tiny_backbone(), path, fingerprint="f", arrays=dataset_arrays(data))
    assert hdf5_dataset(path).class_names == data.class_names
    with h5py.File(path) as file:
        assert file["image_files"][index].endswith(b"caf\xe9.png")
    write_xlsa17(data.with_regions(load_regions(path)), tmp_path / "xlsa17")
    assert (tmp_path / "xlsa17" / "res101.mat").is_file()


def test_hidden_files_are_passed_over(root: Path) -> None:
    (root / "images" / "ant" / ".DS_Store").write_bytes(b"x")
    (root / "images" / "ant" / "Thumbs.db").write_bytes(b"x")
    (root / "images" / ".cache").mkdir()
    assert len(image_folder(root).labels) == 20


def make_extra_folder(root: Path) -> None:
    (root / "images" / "catt").mkdir()


def make_missing_folder(root: Path) -> None:
    (root / "images" / "bee").rename(root / "images" / "bea")
    rows = rows_of(root)
    write_table(root, rows)


def empty_class(root: Path) -> None:
    for image in (root / "images" / "bee").iterdir():
        image.unlink()


def same_name_twice(root: Path) -> None:
    change(root, 2, 0, "ant")


def blank_lines_and_a_fault(root: Path) -> None:
    header, ant, *others = (root / "classes.csv").read_text().splitlines()
    others[0] = others[0].replace("3", "many", 1)
    (root / "classes.csv").write_text("\n".join([header, "", ant, "", " ", *others]) + "\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_extra_folder, r'images/catt: class catt has no row in .*classes.csv; did you mean "cat"\?'),
        (make_missing_folder, r'classes.csv: class bee has no folder in .*; did you mean "bea"\?'),
        (empty_class, r"images/bee: class bee has no images"),
        (lambda r: change(r, 3, 2, "four"), r'row 4, column "legs": "four"; wanted a finite number'),
        (lambda r: change(r, 2, 3, "nan"), r"1 empty cells or NaN, first bee, size; wanted finite numbers"),
        (lambda r: change(r, 2, 3, ""), r"1 empty cells or NaN, first bee, size; wanted finite numbers"),
        (lambda r: [change(r, i, 1, "unseen") for i in range(1, 5)], r'every class has split "unseen"; wanted seen'),
        (lambda r: change(r, 4, 1, "tst"), r'column "split" has no numbers; wanted numbers, or yes and no'),
        (lambda r: change(r, 3, 3, "2 kg"), r'column "size": the units none and kg; wanted one unit'),
        (lambda r: change(r, 0, 3, "legs"), r'2 columns are named "legs"; wanted one'),
        (lambda r: change(r, 0, 3, ""), r"row 2: 4 cells; wanted 3 as in the first row"),
        (blank_lines_and_a_fault, r'row 6, column "legs": "many"; wanted a finite number'),
        (same_name_twice, r"class ant is in 2 rows; wanted one row for each class"),
        (lambda r: write_table(r, [row[:-1] if i == 2 else row for i, row in enumerate(rows_of(r))]),
         r"row 3: 3 cells; wanted 4 as in the first row"),
        (lambda r: write_table(r, [row[:2] for row in rows_of(r)]), r"no column of numbers beside the class names"),
        (lambda r: write_table(r, [rows_of(r)[0]] + [[*row[:2], "1", "1"] for row in rows_of(r)[1:]]),
         r"all classes have the same attributes"),
        (lambda r: write_table(r, []), r"the table is empty"),
        (lambda r: (r / "classes.csv").write_bytes(b"class,\xff\xfe\n"), r"rows; wanted a header and a row a class"),
        (lambda r: (r / "classes.csv").unlink(), r"no file .*classes.csv; wanted a table with columns class,split"),
    ],
)  # fmt: skip
def test_faults_of_table_and_folders(root: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    spoil(root)
    with pytest.raises(UserError, match=message) as caught:
        image_folder(root)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--root: no folder"):
        image_folder(tmp_path / "nowhere")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def text(path: Path) -> None:
    path.write_text("this is no image")


def bomb(path: Path) -> None:
    """A PNG of 200,000 × 200,000 pixels in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


@pytest.mark.parametrize("spoil", [truncated, text, bomb])
def test_a_bad_image_is_named_or_left_out_and_counted(root: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    bad = root / "images" / "bee" / "3.png"
    spoil(bad)
    data = image_folder(root)
    assert data.images is not None
    with pytest.raises(UserError, match=r"bee/3\.png: "):
        [data.images.image(i) for i in range(len(data.images))]
    kept = image_folder(root, skip_bad_images=True)
    assert len(kept.labels) == 19
    assert torch.bincount(kept.labels).tolist() == [5, 4, 5, 5]
    assert [Path(s.split(": ")[0]) for s in kept.images.skipped] == [bad]  # type: ignore[union-attr]


def test_images_of_every_mode_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (4, 5)).save(path)
        assert read_image(path).mode == "RGB"


def test_the_real_photographs(caltech101: Path) -> None:
    data = image_folder(caltech101)
    assert (data.num_classes, len(data.unseen), data.embedding_dim) == (95, 20, 100)
    assert len(data.labels) == 3735
    assert data.images is not None
    assert min(data.images.image(i).size[0] for i in range(0, 3735, 400)) > 50


def test_a_decoder_may_fail_with_any_error(tmp_path: Path) -> None:
    """Offsets of a TIFF as rational numbers: Pillow ends with a TypeError."""
    path = tmp_path / "image.tiff"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    directory = int.from_bytes(content[4:8], "little")
    for i in range(int.from_bytes(content[directory : directory + 2], "little")):
        entry = directory + 2 + 12 * i
        if content[entry : entry + 2] == (273).to_bytes(2, "little"):  # StripOffsets
            content[entry + 2 : entry + 4] = (5).to_bytes(2, "little")  # RATIONAL
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable image"):
        read_image(path)
