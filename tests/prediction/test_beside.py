"""New classes beside the run's own: gamma is added to every class that the run was not trained on, and it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastzsl.data.formats.folder import read_class_table
from fastzsl.errors import UserError
from fastzsl.prediction.classes import OwnClasses

OWN = "class,split,red,round\nfox,seen,1,0\nball,seen,0,1\nwolf,unseen,1,1\nbox,seen,0,0\n"


@pytest.fixture
def own(tmp_path: Path) -> OwnClasses:
    table = tmp_path / "classes.csv"
    table.write_text(OWN)
    return OwnClasses(read_class_table(table), 0.25)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    table = tmp_path / "new.csv"
    table.write_text("class,round,red\nsun,1,0.5\nmars,1,0.9\n")
    return table


def test_gamma_goes_to_new_and_unseen_classes_and_not_to_those_with_training_images(
    own: OwnClasses, new: Path
) -> None:
    beside_seen = own.candidates(new, "seen")
    assert beside_seen.names == ("sun", "mars", "fox", "ball", "box")
    assert beside_seen.kinds == ("new", "new", "seen", "seen", "seen")
    assert beside_seen.training_ids.tolist() == [-1, -1, 0, 1, 2]
    assert beside_seen.bias.tolist() == [0.25, 0.25, 0, 0, 0]
    torch.testing.assert_close(beside_seen.embeddings[:3], torch.tensor([[0.5, 1], [0.9, 1], [1, 0]]))
    beside_all = own.candidates({"sun": [0.5, 1]}, "all")
    assert beside_all.names == ("sun", "fox", "ball", "wolf", "box")
    assert beside_all.bias.tolist() == [0.25, 0, 0, 0.25, 0]
    assert own.candidates(new).bias.tolist() == [0, 0]


def test_the_description_says_whether_gamma_is_used_and_why(own: OwnClasses, new: Path) -> None:
    said = own.candidates(new, "all").description
    assert (
        "beside the run's 4 classes; gamma 0.2500 is added to the scores of the 3 new and unseen ones" in said
    )
    assert "because a model prefers the 3 classes that it was trained on" in said
    assert "the 2 new ones, because" in own.candidates(new, "seen").description
    assert "without gamma, which balances" in own.candidates(new).description
    own.gamma = 0.0
    assert "without gamma, because the run's gamma is 0" in own.candidates(new, "seen").description


@pytest.mark.parametrize(
    ("classes", "beside", "message"),
    [
        ("all", "seen", "beside seen needs new classes, but classes is all"),
        ({"sun": [1, 1]}, "unseen", 'beside is "unseen"; wanted "seen" or "all"'),
        ({"Fox": [1, 1]}, "seen", r"class Fox is one of the run's own \(fox\)"),
        ({"wolf": [1, 1]}, "all", "class wolf is one of the run's own"),
    ],
)
def test_what_cannot_stand_beside_the_own_classes_is_refused(
    own: OwnClasses, classes, beside, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        own.candidates(classes, beside)


def test_a_new_class_may_have_the_name_of_an_own_class_that_is_no_candidate(own: OwnClasses) -> None:
    assert own.candidates({"wolf": [1, 1]}, "seen").names == ("wolf", "fox", "ball", "box")


def test_a_run_without_unseen_classes_says_so(tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("class,split,red\nfox,seen,1\nball,seen,0\n")
    own = OwnClasses(read_class_table(table), 0.25)
    assert own.candidates().bias.tolist() == [0, 0]
    assert "without gamma" in own.candidates().description
    with pytest.raises(UserError, match="the run has no unseen classes"):
        own.candidates("unseen")
