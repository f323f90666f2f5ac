"""One reader for tables, .npz and .mat: any order of columns, yes and no, units, separators, subsets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from fastzsl.data.descriptions.reading import read_descriptions
from fastzsl.data.formats.folder import read_class_table
from fastzsl.data.make.attributes import describe_attributes
from fastzsl.errors import UserError
from fastzsl.prediction.classes import OwnClasses

VALUES = np.array([[0.5, 1], [2, 0]])


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, names=np.array(["fox", "owl"]), embeddings=VALUES, **arrays)
    return path


@pytest.fixture
def own(tmp_path: Path) -> OwnClasses:
    text = "class,split,weight,wings\na,seen,1,0\nb,seen,3,1\nc,unseen,9,1\n"
    return OwnClasses(read_class_table(table(tmp_path / "classes.csv", text)), 0.1)


@pytest.mark.parametrize(
    "text",
    [
        "wings,class,weight\nyes,fox,0.5\nno,owl,2\n",
        "Animal;weight;wings\nfox;0,5;true\nowl;2;false\n",
        "weight\twings\tname\tremarks\n.5\tx\tfox\tsly\n2\tabsent\towl\twise\n",
    ],
)
def test_new_classes_are_read_from_tables_as_users_have_them(
    tmp_path: Path, own: OwnClasses, text: str
) -> None:
    found = own.candidates(table(tmp_path / "new.csv", text))
    assert found.names == ("fox", "owl")
    np.testing.assert_array_equal(found.embeddings, VALUES)


def test_the_other_kinds_of_files_are_read_for_new_classes_too(tmp_path: Path, own: OwnClasses) -> None:
    plain = own.candidates(npz(tmp_path / "a.npz"))
    np.testing.assert_array_equal(plain.embeddings, VALUES)
    named = own.candidates(npz(tmp_path / "b.npz", attributes=np.array(["wings", "weight"])))
    np.testing.assert_array_equal(named.embeddings, VALUES[:, ::-1])
    cells = np.array(["fox", "owl"], dtype=object)[:, None]
    scipy.io.savemat(tmp_path / "c.mat", {"att": VALUES.T, "allclasses_names": cells})
    np.testing.assert_array_equal(own.candidates(tmp_path / "c.mat").embeddings, VALUES)


def test_a_unit_is_part_of_the_attribute_so_that_other_units_are_refused(tmp_path: Path) -> None:
    text = "class,split,weight,span (cm)\na,seen,1 kg,10cm\nb,seen,3.5 kg,12 cm\nc,unseen,-,9 cm\n"
    found = read_descriptions(table(tmp_path / "a.csv", text))
    assert found.attributes == ["weight [kg]", "span (cm)"]
    np.testing.assert_array_equal(found.values, [[1, 10], [3.5, 12], [np.nan, 9]])
    run = OwnClasses(read_class_table(table(tmp_path / "c.csv", text.replace("-", "2 kg"))), 0.1)
    for grams in ("900 g", "900"):
        new = table(tmp_path / "new.csv", f"class,weight,span (cm)\nx,{grams},8\n")
        with pytest.raises(UserError, match=r'is no attribute of the run; did you mean "weight \[kg\]"'):
            run.candidates(new)
    mixed = table(tmp_path / "mixed.csv", "class,weight\na,1 kg\nb,900 g\n")
    with pytest.raises(UserError, match=r'column "weight": the units kg and g; wanted one unit'):
        read_descriptions(mixed)


@pytest.mark.parametrize(("missing", "weight"), [("mean", 2.0), ("zero", 0.0)])
def test_a_subset_of_the_attributes_is_refused_or_filled_as_told_and_said(
    tmp_path: Path, own: OwnClasses, missing, weight: float
) -> None:
    new = table(tmp_path / "new.csv", "class,wings\nfox,yes\n")
    with pytest.raises(UserError, match=r"weight missing .*--missing mean"):
        own.candidates(new)
    found = own.candidates(new, missing=missing)
    torch.testing.assert_close(found.embeddings, torch.tensor([[weight, 1.0]]))
    assert "not given and filled with" in found.description
    assert "weight" in found.description
    by_name = own.candidates({"fox": {"wings": 1}}, missing=missing)
    torch.testing.assert_close(by_name.embeddings, found.embeddings)
    with pytest.raises(UserError, match='missing is "guess"'):
        own.candidates(new, missing="guess")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: npz(p / "a.npz", attributes=np.array(["x"])), "1 different attribute names for 2 numbers"),
        (
            lambda p: npz(p / "a.npz", attributes=np.array(["wings", "size"])),
            "size is no attribute of the run",
        ),
        (lambda p: npz(p / "a.npz", attributes=np.arange(2)), "attributes is .*; wanted texts"),
        (lambda p: table(p / "a.xls", "x"), r"wanted a table \(\.csv"),
        (lambda p: table(p / "a.csv", "class,weight,wings\nfox,inf,1\n"), "weight missing"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, own: OwnClasses, make, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        own.candidates(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        ([[0, 1, 1], [0, 8, 4]], "standardise"),
        ([[0, 1, 1], [0, 1, 0.5]], "centre"),
        ([[5, 90, 3], [60, 7, 9]], "centre"),
    ],
)
def test_the_normalisation_that_fits_is_said(columns: list[list[float]], advice: str) -> None:
    values = np.array(columns, dtype=float).T
    notes = describe_attributes(values, np.zeros(3, dtype=bool), ["a", "b", "c"], ["wings", "legs"])
    assert any(f"--embedding-normalisation {advice}" in note for note in notes)
