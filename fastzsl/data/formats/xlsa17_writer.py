"""A data set in the form of the proposed splits, for programs that read `res101.mat` and `att_splits.mat`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.io

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError

BATCH = 256


def write_xlsa17(data: ZeroShotDataset, folder: Path) -> None:
    """Write `res101.mat` and `att_splits.mat`, counted from 1 as theirs are.

    `features` (d, N) are the means over the regions. `att` has unit length for each class, `original_att` is as given.
    Unlike in the published files, `train_loc` and `val_loc` divide `trainval_loc` by class, so training on them uses
    no test image.

    Args:
        data: with images and region features.
        folder: made if it does not exist.
    """
    if data.regions is None or data.images is None:
        raise UserError(f"data set {data.name} has no images or no features to write")
    folder.mkdir(parents=True, exist_ok=True)
    ids = data.image_ids.split(BATCH)
    features = np.concatenate([data.regions.regions(batch).float().mean(1).numpy() for batch in ids])
    names = [data.images.describe(i) for i in data.image_ids.tolist()]
    files = [os.fsencode(name).decode("utf-8", "replace") for name in names]
    scipy.io.savemat(
        folder / "res101.mat",
        {
            "features": features.T.astype(np.float64),
            "labels": data.labels.numpy()[:, None].astype(np.float64) + 1,
            "image_files": _cells(files),
        },
        do_compression=True,
    )
    labels, trainval = data.labels.numpy(), data.trainval.numpy()
    validation = data.seen.numpy()[::4]
    of_validation = np.isin(labels[trainval], validation)
    att = data.class_embeddings.double().numpy()
    length = np.linalg.norm(att, axis=1, keepdims=True)
    scipy.io.savemat(
        folder / "att_splits.mat",
        {
            "att": (att / np.maximum(length, 1e-12)).T,
            "original_att": att.T,
            "allclasses_names": _cells(data.class_names),
            "trainval_loc": _places(trainval),
            "train_loc": _places(trainval[~of_validation]),
            "val_loc": _places(trainval[of_validation]),
            "test_seen_loc": _places(data.test_seen.numpy()),
            "test_unseen_loc": _places(data.test_unseen.numpy()),
        },
    )


def _places(indices: np.ndarray) -> np.ndarray:
    return indices[:, None].astype(np.float64) + 1


def _cells(texts: list[str] | tuple[str, ...]) -> np.ndarray:
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = texts
    return cells
