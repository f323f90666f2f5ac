"""Class embeddings of one's own: matched to the classes by name, whatever the file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fastzsl.data.descriptions.names import match_names, plain_name
from fastzsl.data.formats.embeddings import read_embeddings
from fastzsl.errors import UserError
from tests.data.xlsa17_files import REAL

CLASSES = ("001.Black_footed_Albatross", "grizzly+bear", "Blue Whale")
VALUES = np.array([[0.5, -1], [2, 3.25], [4, 5]], dtype=np.float32)
SHUFFLED, OTHER_NAMES = [2, 0, 1], ["blue-whale", "black footed albatross", "Grizzly_Bear"]


def as_csv(path: Path, names: list[str], values: np.ndarray) -> Path:
    rows = ["class,x,y", *(f"{n},{a},{b}" for n, (a, b) in zip(names, values.tolist()))]
    path.write_text("\n".join(rows))
    return path


def test_every_format_gives_the_rows_in_the_order_of_the_classes(tmp_path: Path) -> None:
    values = VALUES[SHUFFLED]
    got, columns = read_embeddings(as_csv(tmp_path / "w.csv", OTHER_NAMES, values), CLASSES)
    np.testing.assert_array_equal(got, VALUES)
    assert columns == ("x", "y")
    np.savez(tmp_path / "w.npz", names=np.array(OTHER_NAMES), embeddings=values)
    np.testing.assert_array_equal(read_embeddings(tmp_path / "w.npz", CLASSES)[0], VALUES)
    cells = np.array(OTHER_NAMES, dtype=object)[:, None]
    scipy.io.savemat(tmp_path / "w.mat", {"att": values.T, "allclasses_names": cells})
    np.testing.assert_array_equal(read_embeddings(tmp_path / "w.mat", CLASSES)[0], VALUES)


def test_the_sentence_embeddings_of_cub(tmp_path: Path) -> None:
    folder = REAL / "CUB"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set FASTZSL_TEST_DATA to the folder that holds xlsa17/")
    raw = scipy.io.loadmat(folder / "att_splits.mat")["allclasses_names"].ravel()
    got, _ = read_embeddings(folder / "sent_splits.mat", [str(n[0]) for n in raw][::-1])
    np.testing.assert_array_equal(
        got, scipy.io.loadmat(folder / "sent_splits.mat")["att"].T.astype(np.float32)[::-1]
    )


def test_names_that_differ_in_writing_only_agree() -> None:
    assert plain_name("001.Black_footed_Albatross") == "black footed albatross"
    assert plain_name("grizzly+bear") == plain_name(" Grizzly bear ")
    assert match_names(Path("f"), ["a b", "A_B"], ["A_B"]) == ["A_B"], "the exact name wins"


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def bare_npz(path: Path) -> Path:
    """An archive whose entries are not numpy's: np.load returns their bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("names.npy", b"grizzly")
        archive.writestr("embeddings.npy", b"1 2 3")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: as_csv(p / "w.csv", OTHER_NAMES[:2], VALUES), "no embedding of class grizzly"),
        (lambda p: as_csv(p / "w.csv", [*OTHER_NAMES, "GRIZZLY-BEAR"], VALUES[[0, 1, 2, 2]]), "could be"),
        (lambda p: p / "absent.csv", "no file"),
        (lambda p: p / "absent.npz", "no file"),
        (lambda p: bare_npz(p / "w.npz"), "names is no array"),
        (lambda p: p / "w.xls", r"wanted a table \(\.csv"),
        (lambda p: npz(p / "w.npz", names=np.array(OTHER_NAMES)), "no array embeddings"),
        (lambda p: npz(p / "w.npz", names=np.arange(3), embeddings=VALUES), "names is .*; wanted texts"),
        (
            lambda p: npz(p / "w.npz", names=np.array(OTHER_NAMES, dtype=object), embeddings=VALUES),
            "not a whole .npz",
        ),
        (lambda p: npz(p / "w.npz", names=np.array(OTHER_NAMES), embeddings=VALUES.T), r"\(2, 3\) for 3"),
        (
            lambda p: npz(p / "w.npz", names=np.array(OTHER_NAMES), embeddings=VALUES * np.nan),
            "6 empty cells or NaN, first ",
        ),
    ],
)
def test_every_fault_is_named(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_embeddings(make(tmp_path), CLASSES)
