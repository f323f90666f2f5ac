"""A whole data set in one HDF5 file, with the names of the dense-attention papers. Indices and labels count from 0.

The arrays are feature_map (N, d, h, w), labels (N,), trainval_loc, test_seen_loc, test_unseen_loc, att and
original_att (C, m). This package adds allclasses_names (C,), attribute_names (m,) and image_files (N,); files without
them can be read too.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.formats.embeddings import check_embeddings
from fastzsl.data.formats.splits import PARTS, check_split, whole_numbers
from fastzsl.errors import UserError
from fastzsl.features.opening import open_regions
from fastzsl.features.store import features_fingerprint
from fastzsl.files.hdf5 import read_hdf5

MOST_CLASSES = 1_000_000


def hdf5_dataset(path: Path, class_embeddings: str = "att") -> ZeroShotDataset:
    """Read such a file; the feature maps are read later, when they are needed.

    Args:
        path: the file.
        class_embeddings: "att" or "original_att".

    Raises:
        UserError: damaged, an array missing or of the wrong shape, or a split that breaks a rule.
    """
    names = (*PARTS, "labels", class_embeddings, "allclasses_names", "attribute_names", "checksum")
    contents = read_hdf5(path, names, maps="feature_map")
    labels = whole_numbers(path, "labels", contents.arrays.get("labels"), 0, MOST_CLASSES)
    if contents.maps is not None and contents.maps.shape[:1] != labels.shape:
        raise UserError(f"{path}: {len(labels)} labels for feature maps of shape {contents.maps.shape}")
    regions = open_regions(path, contents.maps, contents.arrays.get("checksum"))
    rows = contents.arrays.get(class_embeddings)
    if rows is None or rows.ndim != 2 or rows.dtype.kind not in "uif" or not rows.size:
        found = "missing" if rows is None else f"{rows.shape} of {rows.dtype}"
        raise UserError(f"{path}: {class_embeddings} is {found}; wanted numbers (C, m), a row a class")
    if labels.max() >= len(rows):
        raise UserError(
            f"{path}: labels run to {labels.max()} but {class_embeddings} has {len(rows)} rows; "
            "wanted a row a class, and labels counted from 0"
        )
    class_names = contents.texts.get("allclasses_names") or [f"class_{i:03d}" for i in range(len(rows))]
    attributes = contents.texts.get("attribute_names") or []
    if len(class_names) != len(rows) or len(attributes) not in (0, rows.shape[1]):
        raise UserError(
            f"{path}: {len(class_names)} class names and {len(attributes)} attribute names for "
            f"{class_embeddings} of shape {rows.shape}"
        )
    if len(set(attributes)) != len(attributes):
        twice = next(name for name in attributes if attributes.count(name) > 1)
        raise UserError(f'{path}: {attributes.count(twice)} attributes are named "{twice}"; wanted one')
    parts = {
        n: whole_numbers(path, n, contents.arrays.get(n), 0, len(labels), n == "test_unseen_loc")
        for n in PARTS
    }
    split = check_split(path, parts, labels, class_names)
    return ZeroShotDataset(
        name=path.stem,
        class_names=tuple(class_names),
        class_embeddings=check_embeddings(path, rows, class_names),
        seen=torch.from_numpy(split.seen),
        unseen=torch.from_numpy(split.unseen),
        labels=torch.from_numpy(labels),
        trainval=torch.from_numpy(split.trainval),
        test_seen=torch.from_numpy(split.test_seen),
        test_unseen=torch.from_numpy(split.test_unseen),
        regions=regions,
        attribute_names=tuple(attributes),
        fingerprint=f"features-{features_fingerprint(path, contents.maps, contents.arrays.get('checksum'))}",
    )


def dataset_arrays(
    data: ZeroShotDataset, original: np.ndarray | None = None, attribute_vectors: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The arrays of such a file, all but `feature_map`.

    Args:
        original: (C, m) class embeddings before any scaling; `class_embeddings` itself by default.
        attribute_vectors: (m, k) a word vector for each attribute, `w2v_att`, which the dense-attention papers' own
            programs read.
    """
    text = h5py.string_dtype()
    att = data.class_embeddings.numpy()
    arrays: dict[str, np.ndarray] = {
        "labels": data.labels.numpy(),
        "trainval_loc": data.trainval.numpy(),
        "test_seen_loc": data.test_seen.numpy(),
        "test_unseen_loc": data.test_unseen.numpy(),
        "att": att,
        "original_att": att if original is None else original,
        "allclasses_names": np.array(data.class_names, dtype=text),
    }
    if attribute_vectors is not None:
        arrays["w2v_att"] = attribute_vectors.astype(np.float32)
    if data.attribute_names:
        arrays["attribute_names"] = np.array(data.attribute_names, dtype=text)
    if data.images is not None:
        files = [os.fsencode(data.images.describe(i)) for i in data.image_ids.tolist()]  # in any encoding
        arrays["image_files"] = np.array(files, dtype=text)
    return arrays
