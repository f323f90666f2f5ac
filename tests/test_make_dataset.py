"""A folder of images and a spreadsheet become a data set that trains, or one line says what is wrong."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from fastzsl.data.find import Sources, find_dataset
from fastzsl.data.formats.folder import image_folder
from fastzsl.data.formats.splits import PARTS, check_split, whole_numbers
from fastzsl.errors import UserError
from fastzsl.files.matlab import read_mat
from fastzsl.make_dataset import Settings, main, make_dataset

SHEET = """Latin name;weight (g);Bird;set;wings
Vulpes vulpes;5500,5;red fox;train;no
Larus argentatus;1100;Herring_Gull;train;yes
Sturnus vulgaris;82,25;starling;train;yes
Lutra lutra;9000;otter;test;no
Apus apus;40;Common-Swift;train;yes
"""
FOLDERS = ("001.Red_Fox", "herring gull", "Starling", "Otter", "common swift")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five folders of three images each, and what desktops leave there."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
        (folder / name / ".DS_Store").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / "readme.txt").write_text("not a class")
    return folder


def _settings(tmp_path: Path, images: Path, text: str | bytes = SHEET, **options) -> Settings:
    table = tmp_path / "sheet.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Settings(images, tmp_path / "out", table, **options)


def test_any_column_names_order_and_delimiter_become_a_data_set_that_loads(
    tmp_path: Path, images: Path
) -> None:
    out = make_dataset(_settings(tmp_path, images))
    data = image_folder(out)
    assert data.class_names == FOLDERS
    assert data.attribute_names == ("weight (g)", "wings")
    expected = [[5500.5, 0], [1100, 1], [82.25, 1], [9000, 0], [40, 1]]
    assert data.class_embeddings.tolist() == expected
    assert data.unseen.tolist() == [3]
    assert len(data.labels) == 15
    first = next((out / "images" / FOLDERS[0]).iterdir())
    assert first.is_symlink()
    assert first.resolve().parent == images / FOLDERS[0]
    report = json.loads((out / "report.json").read_text())
    assert report["pictures"] == dict.fromkeys(FOLDERS, 3)
    notes = "\n".join(report["notes"])
    for word in ('column "Bird"', "Latin name", "as the spreadsheet says", "unequal scales: weight (g)"):
        assert word in notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_spreadsheet_programs_are_read(tmp_path: Path, images: Path, encoding: str) -> None:
    (images / "Starling").rename(images / "étourneau")
    text = SHEET.replace("starling", "Étourneau").encode(encoding)
    data = image_folder(make_dataset(_settings(tmp_path, images, text)))
    assert "étourneau" in data.class_names


def test_images_are_copied_where_asked(tmp_path: Path, images: Path) -> None:
    out = make_dataset(_settings(tmp_path, images, pictures="copy"))
    copies = list((out / "images" / FOLDERS[0]).iterdir())
    assert len(copies) == 3
    assert not any(path.is_symlink() for path in copies)


def test_unseen_classes_by_name_by_file_and_at_random(tmp_path: Path, images: Path) -> None:
    base = _settings(tmp_path, images)
    named = image_folder(make_dataset(replace(base, out=tmp_path / "a", unseen=("Starling", "red fox"))))
    assert named.unseen.tolist() == [0, 2]
    (tmp_path / "unseen.txt").write_text("starling\nred-fox\n")
    by_file = replace(base, out=tmp_path / "b", unseen=(str(tmp_path / "unseen.txt"),))
    assert image_folder(make_dataset(by_file)).unseen.tolist() == [0, 2]
    text = SHEET.replace(";set;", ";remarks;")
    drawn = [
        replace(_settings(tmp_path, images, text), out=tmp_path / f"c{i}", unseen_share=0.4, seed=seed)
        for i, seed in enumerate((1, 1, 2, 3, 4))
    ]
    found = [image_folder(make_dataset(settings)).unseen.tolist() for settings in drawn]
    assert all(len(unseen) == 2 for unseen in found)
    assert found[0] == found[1]
    assert len({tuple(unseen) for unseen in found}) > 1


@pytest.mark.parametrize(("how", "expected"), [("zero", 0.0), ("mean", (5500.5 + 1100 + 82.25) / 3)])
def test_empty_cells_are_filled_only_when_told(
    tmp_path: Path, images: Path, how: str, expected: float
) -> None:
    text = SHEET.replace("Apus apus;40;", "Apus apus;n/a;")
    with pytest.raises(UserError, match=r"1 empty cells, first common swift, weight \(g\); fill them in"):
        make_dataset(_settings(tmp_path, images, text))
    data = image_folder(make_dataset(_settings(tmp_path, images, text, missing=how)))
    assert data.class_embeddings[4, 0] == pytest.approx(expected)


def test_every_class_with_images_can_be_seen_and_rows_without_images_can_stay(
    tmp_path: Path, images: Path
) -> None:
    text = SHEET.replace(";set;", ";remarks;") + "Bubo bubo;2500;eagle owl;train;yes\n"
    with pytest.raises(UserError, match=r"first eagle owl .*--keep-rows keeps them as unseen"):
        make_dataset(_settings(tmp_path, images, text, unseen_share=0))
    out = make_dataset(_settings(tmp_path, images, text, unseen_share=0, keep_rows=True))
    data = image_folder(out)
    assert data.class_names == (*FOLDERS, "eagle owl")
    assert data.unseen.tolist() == [5]
    assert len(data.test_unseen) == 0
    assert not (out / "images" / "eagle owl").exists()
    notes = "\n".join(json.loads((out / "report.json").read_text())["notes"])
    assert "unseen classes without images: eagle owl" in notes
    assert "no test on unseen classes" in notes


def test_partial_leaves_out_what_has_no_partner(tmp_path: Path, images: Path) -> None:
    text = SHEET + "Bubo bubo;2700;eagle owl;train;yes\n"
    (images / "badger").mkdir()
    with pytest.raises(UserError, match=r"1 folders have no row in .*first badger"):
        make_dataset(_settings(tmp_path, images, text))
    (images / "badger").rmdir()
    with pytest.raises(UserError, match="1 rows have no folder of images, first eagle owl"):
        make_dataset(_settings(tmp_path, images, text))
    (images / "badger").mkdir()
    assert len(image_folder(make_dataset(_settings(tmp_path, images, text, partial=True))).class_names) == 5


def test_bad_and_repeated_images_are_named(tmp_path: Path, images: Path) -> None:
    (images / "Otter" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (images / "Starling" / "9.png").write_bytes((images / "Otter" / "0.png").read_bytes())
    settings = _settings(tmp_path, images)
    with pytest.raises(UserError, match=r"1 of 17 images cannot be read, first .*broken\.jpg"):
        make_dataset(settings)
    assert not settings.out.exists()
    out = make_dataset(replace(settings, skip_bad_images=True))
    notes = "\n".join(json.loads((out / "report.json").read_text())["notes"])
    assert "broken.jpg: not a readable image" in notes
    assert "1 images are in several classes" in notes
    assert len(image_folder(out).labels) == 16


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the table is empty"),
        ("Bird;a\n", {}, "1 rows; wanted a header"),
        (b"PK\x03\x04rest", {}, "save its sheet as CSV"),
        (b"a,b\n\0\0,1\n", {}, "not a text file"),
        (SHEET.replace("\n", "\n\n;;;;\n").replace("82,25", "eighty"), {}, 'row 10, column "weight'),
        (
            SHEET.replace("82,25", "eighty"),
            {},
            'row 4, column "weight (g)": "eighty"; wanted a finite number',
        ),
        (SHEET.replace(";no\n", "\n", 1), {}, "row 2: 4 cells; wanted 5"),
        (SHEET.replace("otter", "Starling"), {}, 'rows of "starling" and "Starling" are of one class'),
        (SHEET.replace("wings", "set"), {}, '2 columns are named "set"'),
        (SHEET.replace(";wings", ";"), {}, "row 2: 5 cells; wanted 4"),
        (SHEET.replace("Bird;set", ";set"), {}, "column 3 has no name"),
        (SHEET, {"class_column": "Brid"}, 'no column "Brid" for --class-column; did you mean "Bird"?'),
        (SHEET, {"leave_out": ("wing",)}, 'no column "wing" for --leave-out; did you mean "wings"?'),
        (SHEET, {"split_column": "wings"}, 'column "wings": "no"; wanted seen or unseen'),
        (SHEET, {"unseen": ("oter",)}, 'no class oter; did you mean "Otter"?'),
        (SHEET.replace("train", "test"), {}, "0 seen classes; wanted at least 2"),
        (SHEET, {"leave_out": ("weight (g)", "wings")}, "no column of numbers"),
        ("n;a\nfoo;1\nbar;2\n", {}, "no column has the class names"),
    ],
)
def test_a_wrong_spreadsheet_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, images: Path, text: str | bytes, options: dict, message: str
) -> None:
    settings = _settings(tmp_path, images, text, **options)
    with pytest.raises(UserError) as caught:
        make_dataset(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["photos", "sheet.csv"]


def test_attributes_that_tell_nothing_are_reported(tmp_path: Path, images: Path) -> None:
    rows = [["class", "a", "b", "split"]]
    rows += [[name, 1 if name != "Otter" else 0, i // 2, "unseen" if name == "Otter" else "seen"]
             for i, name in enumerate(FOLDERS)]  # fmt: skip
    with open(tmp_path / "sheet.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    out = make_dataset(Settings(images, tmp_path / "out", tmp_path / "sheet.csv"))
    notes = "\n".join(json.loads((out / "report.json").read_text())["notes"])
    assert "1 attributes are the same for all seen classes" in notes
    assert "1 pairs of classes have the same attributes" in notes
    same = Settings(images, tmp_path / "other", tmp_path / "sheet.csv", leave_out=("b",))
    with pytest.raises(UserError, match="all seen classes have the same attributes"):
        make_dataset(same)


def test_an_existing_folder_is_not_touched_and_no_image_is_read_for_it(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    monkeypatch.setattr("fastzsl.make_dataset.list_images", None)  # hours, for many images
    with pytest.raises(UserError, match="is not empty"):
        make_dataset(_settings(tmp_path, images))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_what_cannot_be_read_as_a_list_or_a_table_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(
        UserError, match=r"--unseen .*binary: not a text in UTF-8; wanted a class name a line"
    ):
        make_dataset(_settings(tmp_path, images, unseen=(str(tmp_path / "binary"),)))
    os.mkfifo(tmp_path / "fifo")
    settings = replace(_settings(tmp_path, images), attributes=tmp_path / "fifo")
    with pytest.raises(UserError, match="fifo is a FIFO; wanted a file of class descriptions"):
        make_dataset(settings)
    os.mkfifo(images / "Otter" / "x.png")
    with pytest.raises(
        UserError, match=r"1 of 16 images cannot be read, first .*x\.png is a FIFO; wanted an image"
    ):
        make_dataset(_settings(tmp_path, images))
    assert not (tmp_path / "out").exists()


def test_the_current_folder_is_no_place(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=r"--out \. is the folder in which this program runs"):
        make_dataset(replace(_settings(tmp_path, images), out=Path(".")))


def test_file_names_that_are_not_utf8_are_taken(tmp_path: Path, images: Path) -> None:
    folder = os.fsencode(images / "Otter")
    os.rename(os.path.join(folder, b"0.png"), os.path.join(folder, b"caf\xe9.png"))
    out = make_dataset(_settings(tmp_path, images))
    assert os.path.exists(os.path.join(os.fsencode(out), b"images", b"Otter", b"caf\xe9.png"))


def test_a_place_where_no_data_set_can_be_is_named(tmp_path: Path, images: Path) -> None:
    settings = _settings(tmp_path, images)
    with pytest.raises(UserError, match=r"--out .*sheet\.csv is a file; wanted a folder to make"):
        make_dataset(replace(settings, out=tmp_path / "sheet.csv"))
    with pytest.raises(
        UserError, match=r"--out .*new lies in --images .*photos, where it would become a class"
    ):
        make_dataset(replace(settings, out=images / "new"))
    with pytest.raises(UserError, match=r"photos is a folder; wanted a file of class descriptions"):
        make_dataset(replace(settings, attributes=images))
    assert not (images / "new").exists()


def test_features_come_in_both_formats_and_agree_with_the_folder(tmp_path: Path, images: Path) -> None:
    settings = _settings(
        tmp_path, images, features=True, backbone="timm/test_resnet", backbone_weights="random"
    )
    out = make_dataset(settings)
    folder = image_folder(out)
    hdf5 = find_dataset(Sources("hdf5", features=out / "features.h5"))
    for name in ("labels", "trainval", "test_seen", "test_unseen", "seen", "unseen", "class_embeddings"):
        torch.testing.assert_close(getattr(hdf5, name), getattr(folder, name))
    assert hdf5.class_names == folder.class_names
    with h5py.File(out / "features.h5") as file:
        maps = file["feature_map"][:]
        np.testing.assert_allclose(file["original_att"][0], [5500.5, 0])
    res101 = read_mat(out / "xlsa17" / "res101.mat", ("features", "labels", "image_files"))
    np.testing.assert_allclose(res101["features"].T, maps.astype(np.float32).mean((2, 3)), rtol=1e-5)
    assert [Path(p).is_file() for p in res101["image_files"]] == [True] * 15
    path = out / "xlsa17" / "att_splits.mat"
    splits = read_mat(path, (*PARTS, "train_loc", "val_loc", "att", "original_att", "allclasses_names"))
    labels = whole_numbers(path, "labels", res101["labels"], 1, 5)
    parts = {name: whole_numbers(path, name, splits[name], 1, 15) for name in PARTS}
    split = check_split(path, parts, labels, splits["allclasses_names"])
    np.testing.assert_array_equal(split.unseen, folder.unseen.numpy())
    np.testing.assert_array_equal(split.trainval, folder.trainval.numpy())
    np.testing.assert_allclose(np.linalg.norm(splits["att"], axis=0), 1)
    raw = scipy.io.loadmat(path)
    train, val = (set(raw[name].ravel().astype(int)) for name in ("train_loc", "val_loc"))
    assert train | val == set(raw["trainval_loc"].ravel().astype(int))
    assert not {labels[i - 1] for i in train} & {labels[i - 1] for i in val}


def test_classes_are_described_by_their_names_or_texts_instead_of_a_table(
    tmp_path: Path, images: Path
) -> None:
    vectors = tmp_path / "words.txt"
    words = ["red", "fox", "herring", "gull", "starling", "otter", "common", "swift", "sea", "mammal"]
    vectors.write_text("".join(f"{word} {i} {i * i % 7} 1\n" for i, word in enumerate(words)))
    texts = tmp_path / "texts.txt"
    texts.write_text("OTTER=sea mammal\n")
    out = make_dataset(
        Settings(images, tmp_path / "out", describe="words", describe_model=str(vectors), texts=texts)
    )
    with (out / "classes.csv").open(encoding="utf-8") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(FOLDERS)
    numbers = [[float(v) for k, v in rows[n].items() if k not in ("class", "split")] for n in FOLDERS]
    assert numbers[0] == [0.5, 0.5, 1], "the mean of red and fox"
    assert numbers[3] == [8.5, (64 % 7 + 81 % 7) / 2, 1], "by its text, though its folder is spelt otherwise"
    record = json.loads((out / "classes.json").read_text())
    assert record["texts"]["OTTER"] == ["sea mammal"]
    assert image_folder(out).num_classes == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither was given"),
        ({"describe": "words", "attributes": Path("a.csv")}, "both were given"),
        ({"attributes": Path("a.csv"), "texts": Path("t.txt")}, "need --describe"),
        ({"describe": "words", "describe_model": "no.vec"}, "no.vec"),
        ({"describe": "words", "texts": Path("no.txt")}, "no file no.txt"),
    ],
)
def test_wrong_descriptions_are_refused_in_one_line(
    tmp_path: Path, images: Path, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_dataset(Settings(images, tmp_path / "out", **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_command_line_prints_the_report_and_the_next_command(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(tmp_path, images)
    arguments = ["--images", str(images), "--attributes", str(settings.attributes), "--out"]
    main([*arguments, str(tmp_path / "out"), "--unseen", "Otter", "Starling"])
    whole = capsys.readouterr().out
    printed = " ".join(whole.split())
    command = f"next: python -m fastzsl.train --dataset folder --root {tmp_path / 'out'}"
    assert (
        f"{command} --embedding-normalisation standardise" in whole.splitlines()
    )  # to be copied as it stands
    assert "3 seen and 2 unseen classes, 15 images" in printed
    assert "python -m fastzsl.train --dataset folder" in printed
    assert "--embedding-normalisation standardise" in printed  # grams beside yes and no
    with pytest.raises(SystemExit) as caught:
        main([*arguments, str(tmp_path / "out2"), "--unseen-share", "2"])
    assert caught.value.code == 2
    assert "--unseen-share is 2.0" in capsys.readouterr().err
