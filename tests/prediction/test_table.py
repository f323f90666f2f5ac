"""Files of predictions: complete or absent, continued where they stopped, with names in any encoding."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.prediction import table
from fastzsl.prediction.images import decode_image, each_image
from fastzsl.prediction.table import COLUMNS, PredictionFile

LATIN1 = os.fsdecode(b"caf\xe9.png")  # a name that is not UTF-8
IMAGES = [Path(name) for name in ("a.png", LATIN1, 'b,"\n.png')]


def entry(image: Path) -> dict:
    if image == IMAGES[2]:
        return {"image": str(image), "error": f"{image}: not a readable image"}
    rows = [{"class": name, "kind": "new", "score": 0.5, "probability": 0.75} for name in ("fox", "öwl")]
    return {"image": str(image), "none_of_these": False, "predictions": rows}


def write(path: Path, images: list[Path], stop: int | None = None, identity: int = 1) -> int:
    file = PredictionFile(path, {"run": identity})
    done = file.begin(images)
    for image in images[done:stop]:
        file.add(entry(image))
    if stop is None:
        file.finish()
    file.close()
    return done


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_stopped_file_continues_and_is_the_same_as_one_that_was_not_stopped(
    tmp_path: Path, ending: str
) -> None:
    whole, stopped = tmp_path / f"whole{ending}", tmp_path / "new" / f"stopped{ending}"
    assert write(whole, IMAGES) == 0
    assert write(stopped, IMAGES, stop=2) == 0
    assert not stopped.exists()
    journal = stopped.with_name(stopped.name + ".partial")
    journal.write_bytes(journal.read_bytes()[:-7])  # killed while it wrote
    assert write(stopped, IMAGES) == 1
    assert stopped.read_bytes() == whole.read_bytes()
    assert [p.name for p in stopped.parent.iterdir()] == [stopped.name]


def test_csv_has_a_row_for_each_image_and_class_and_keeps_names_as_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", IMAGES)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["image"], row["rank"], row["class"]) for row in rows] == [
        ("a.png", "1", "fox"), ("a.png", "2", "öwl"), (LATIN1, "1", "fox"), (LATIN1, "2", "öwl"),
        (str(IMAGES[2]), "", ""),
    ]  # fmt: skip
    assert b"caf\xe9.png" in (tmp_path / "a.csv").read_bytes()
    assert rows[0]["score"] == "0.5"
    assert rows[0]["none_of_these"] == "False"
    assert "not a readable image" in rows[-1]["error"]


def test_json_lines_hold_the_entries(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", IMAGES)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [entry(image) for image in IMAGES]


def test_parquet_has_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    monkeypatch.setattr(table, "ROWS", 2)
    write(tmp_path / "a.parquet", IMAGES)
    found = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["rank"] for row in found] == [1, 2, 1, 2, None]
    assert found[2]["image"] == "caf\\udce9.png"
    assert found[0]["probability"] == 0.75


def test_without_pyarrow_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(table.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[parquet\]'"):
        PredictionFile(tmp_path / "a.parquet", {})


def test_another_run_or_other_images_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path, IMAGES, stop=2)
    before = (tmp_path / "a.csv.partial").read_bytes()
    for images, identity in ((IMAGES, 2), (IMAGES[1:], 1), (IMAGES[:1], 1)):
        with pytest.raises(UserError, match="begun with another run, other classes, settings or images"):
            write(path, images, identity=identity)
        assert (tmp_path / "a.csv.partial").read_bytes() == before
    (tmp_path / "a.csv.partial").write_bytes(b"[1]\n")
    with pytest.raises(UserError, match="not whole; remove it"):
        write(path, IMAGES)
    path.touch()
    with pytest.raises(UserError, match="exists; remove it"):
        PredictionFile(path, {})
    with pytest.raises(UserError, match=r"a\.txt: wanted a file that ends with \.csv, \.jsonl, \.parquet"):
        PredictionFile(tmp_path / "a.txt", {})
    with pytest.raises(UserError, match=r"a\.csv is no folder"):
        PredictionFile(path / "b.csv", {})


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        images = [Path(f"{i}.png") for i in range(count)]
        file = PredictionFile(tmp_path / f"{count}.csv", {})
        tracemalloc.start()
        try:
            file.begin(images)
            for image in images:
                file.add(entry(image))
            file.finish()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = peak(100)
    assert peak(3000) < small + 200_000


def test_bytes_and_file_objects_are_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    for given in (content.getvalue(), io.BytesIO(content.getvalue()), memoryview(content.getvalue())):
        [one] = each_image(given) if not isinstance(given, memoryview) else [given]
        np.testing.assert_array_equal(np.asarray(decode_image(one, "image 0")), pixels)
    closed = io.BytesIO()
    closed.close()
    for wrong, message in (
        (b"nothing", "image 3: not a readable image"),
        (closed, "image 3: cannot be read"),
        (io.StringIO("text"), "image 3 is a file object of texts; wanted a file, bytes"),
        (3, "image 3 is a int; wanted a file"),
    ):
        with pytest.raises(UserError, match=message):
            decode_image(wrong, "image 3")
