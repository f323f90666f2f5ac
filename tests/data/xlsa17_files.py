"""The real split files, and res101.mat files of the true sizes that agree with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fastzsl.data.formats.xlsa17 import KNOWN

REAL = Path(os.environ.get("FASTZSL_TEST_DATA") or Path(__file__).parents[3] / "shared/data") / "xlsa17"
VALIDATION = {"awa1": 13, "awa2": 13, "cub": 50, "sun": 65, "apy": 5, "flo": 20}


def real_split(name: str) -> Path:
    """The real att_splits.mat, or skip."""
    path = REAL / KNOWN[name].folder / "att_splits.mat"
    if not path.is_file():
        pytest.skip(f"no {path}; set FASTZSL_TEST_DATA to the folder that holds xlsa17/")
    return path


def labels_for(name: str, split: dict[str, np.ndarray]) -> np.ndarray:
    """Labels from 1 that agree with a split: the true ones are in res101.mat, which is not to be had here."""
    known = KNOWN[name]
    labels = np.zeros(known.images, dtype=np.int64)
    unseen = split["test_unseen_loc"].ravel().astype(int) - 1
    held = split["val_loc"].ravel().astype(int) - 1 if "val_loc" in split else unseen[:0]
    others = np.setdiff1d(np.arange(known.images), np.concatenate([unseen, held]))
    classes = np.random.default_rng(0).permutation(known.classes) + 1
    first, second = known.unseen, known.unseen + (VALIDATION[name] if len(held) else 0)
    # Each class gets images of trainval before any of test_seen, or it would have nothing to train with.
    trainval = np.isin(np.arange(known.images), split["trainval_loc"].ravel().astype(int) - 1)
    for images, ids in (
        (unseen, classes[:first]),
        (held, classes[first:second]),
        (others, classes[second:]),
    ):
        ordered = images[np.argsort(~trainval[images], kind="stable")]
        labels[ordered] = np.resize(ids, len(ordered))
    return labels


def make_root(root: Path, name: str, dimension: int = 4, **changes: np.ndarray | None) -> Path:
    """`root`/<DS> with the real split, and a res101.mat of the true number of images.

    `changes` replace variables of either file, or remove them where None.
    """
    split = {k: v for k, v in scipy.io.loadmat(real_split(name)).items() if not k.startswith("__")}
    known = KNOWN[name]
    features = np.random.default_rng(1).random((dimension, known.images), dtype=np.float32)
    resnet: dict[str, np.ndarray] = {"features": features, "labels": labels_for(name, split)[:, None]}
    for variable, value in changes.items():
        file = resnet if variable in ("features", "labels", "image_files") else split
        file.pop(variable, None)
        if value is not None:
            file[variable] = value
    folder = root / known.folder
    folder.mkdir(parents=True, exist_ok=True)
    if changes.keys() <= {"features", "labels", "image_files"}:
        shutil.copy(real_split(name), folder / "att_splits.mat")
    else:
        scipy.io.savemat(folder / "att_splits.mat", split)
    scipy.io.savemat(folder / "res101.mat", resnet)
    return root
