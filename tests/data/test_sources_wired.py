"""Every data set by its name on the command line, with the options that it takes and those it refuses."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fastzsl.data.find import Sources, find_dataset, with_features
from fastzsl.data.formats.hdf5 import dataset_arrays
from fastzsl.data.formats.shapes import shapes
from fastzsl.errors import UserError
from fastzsl.training.settings import DataSettings, Settings, load_settings, save_settings
from tests.data.xlsa17_files import make_root
from tests.features.feature_files import tiny_backbone


def test_a_benchmark_with_word_vectors_of_ones_own(tmp_path: Path) -> None:
    root = make_root(tmp_path, "awa2")
    plain = find_dataset(Sources("awa2", root))
    np.savez(
        tmp_path / "words.npz",
        names=np.array(plain.class_names)[::-1],
        embeddings=np.arange(50)[::-1, None] * np.ones((1, 7)),
    )
    data = find_dataset(Sources("awa2", root, class_embeddings=str(tmp_path / "words.npz")))
    assert torch.equal(data.class_embeddings, torch.arange(50.0)[:, None].expand(-1, 7))
    assert torch.equal(data.trainval, plain.trainval)


def test_a_file_of_feature_maps_needs_no_backbone(tmp_path: Path) -> None:
    data = shapes()
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, values in dataset_arrays(data).items():
            file[name] = values
        file["feature_map"] = np.ones((len(data.labels), 2, 3, 3), dtype=np.float16)
    again = find_dataset(Sources("hdf5", features=tmp_path / "f.h5"))
    assert with_features(again, tiny_backbone()) is again
    assert again.attribute_names == data.attribute_names
    assert again.class_names == data.class_names
    for field in ("class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen"):
        assert torch.equal(getattr(again, field), getattr(data, field)), field


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (Sources("hdf5"), "--dataset hdf5 needs --features FILE"),
        (Sources("cub"), "--dataset cub needs --root DIR"),
        (Sources("shapes", features=Path("f.h5")), "--features is not for --dataset shapes"),
        (Sources("folder", Path("x"), images=Path("y")), "--images is not for --dataset folder"),
        (Sources("shapes", class_embeddings="original_att"), "--class-embeddings original_att is not for"),
        (Sources("shapes", class_embeddings="nonsense"), "wanted att, original_att, or a .csv"),
    ],
)
def test_options_that_do_not_belong_are_refused(sources: Sources, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_dataset(sources)


def test_the_settings_survive_their_file(tmp_path: Path) -> None:
    settings = Settings(DataSettings("cub", root=Path("r"), images=Path("i"), features=Path("f.h5")))
    save_settings(settings, tmp_path / "c.yaml")
    assert load_settings(tmp_path / "c.yaml") == settings
    with pytest.raises(UserError, match="needs --features"):
        DataSettings("hdf5")
