"""The proposed splits (Xian et al.), on which zero-shot papers compare: res101.mat and att_splits.mat.

Their indices and labels count from 1 and are sometimes uint16. `train_loc` and `val_loc` together are trainval *and*
test_seen, so training on `train_loc` would use test images. Only the classes of the two are used here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.descriptions.names import plain_name
from fastzsl.data.formats.embeddings import check_embeddings
from fastzsl.data.formats.folder import FolderImages, fingerprint
from fastzsl.data.formats.splits import PARTS, Split, check_split, whole_numbers
from fastzsl.errors import UserError
from fastzsl.features.opening import open_regions
from fastzsl.features.sources import MemoryRegions, RegionSource
from fastzsl.features.store import features_fingerprint
from fastzsl.files.hdf5 import read_hdf5
from fastzsl.files.matlab import read_mat


@dataclass(frozen=True)
class Known:
    """The known sizes of a published data set; a file that differs belongs to another data set."""

    folder: str
    images: int
    classes: int
    unseen: int


KNOWN = {
    "awa1": Known("AWA1", 30475, 50, 10),
    "awa2": Known("AWA2", 37322, 50, 10),
    "cub": Known("CUB", 11788, 200, 50),
    "sun": Known("SUN", 14340, 717, 72),
    "apy": Known("APY", 15339, 32, 12),
    "flo": Known("FLO", 8189, 102, 20),
}


@dataclass(frozen=True)
class Published:
    """The contents of `att_splits.mat` and the labels of `res101.mat`, checked and counted from 0.

    Attributes:
        class_names: C names; FLO has none and gets class_001, ….
        att, original_att: (C, m) float32; the latter is None if the file does not have it.
        labels: (N,) int64.
        split: trainval, test_seen and test_unseen, seen and unseen classes.
        validation_classes: the seen classes that the authors hold out for validation, or None.
    """

    class_names: tuple[str, ...]
    att: Tensor
    original_att: Tensor | None
    labels: np.ndarray
    split: Split
    validation_classes: np.ndarray | None


def xlsa17(
    name: str,
    root: Path,
    *,
    images: Path | None = None,
    features: Path | None = None,
    class_embeddings: str = "att",
) -> ZeroShotDataset:
    """One of the data sets in `KNOWN`.

    Args:
        name: a key of `KNOWN`.
        root: holds <DS>/res101.mat and <DS>/att_splits.mat, as xlsa17.zip does in its folder data.
        images: folder of the images of `image_files`; region features are then extracted from them.
        features: file of region features to use instead; without either, the pooled features of res101.mat
            are used, with one region for each image.
        class_embeddings: "att" or "original_att".

    Raises:
        UserError: a file is absent or damaged, breaks a rule of the split, or belongs to another data set.
    """
    known = KNOWN[name]
    folder = find_folder(root, known.folder)
    published = read_published(folder, known, features)
    embeddings = published.att
    if class_embeddings == "original_att":
        if published.original_att is None:
            raise UserError(f"{folder / 'att_splits.mat'}: no original_att; use --class-embeddings att")
        embeddings = known_attributes(published.original_att, published.split.seen)
    split = published.split
    source: FolderImages | None = None
    regions: RegionSource | None = None
    mark = ""
    if images is not None:
        paths = find_images(folder / "res101.mat", images, published)
        source, mark = FolderImages(paths), fingerprint(paths, images)
    if features is not None:
        contents = read_hdf5(features, ["checksum"], maps="feature_map")
        checksums = contents.arrays.get("checksum")
        regions = open_regions(features, contents.maps, checksums, known.images)
        mark = f"features-{features_fingerprint(features, contents.maps, checksums)}"
    elif images is None:
        rows = pooled_features(folder / "res101.mat", known.images)
        regions = MemoryRegions(torch.from_numpy(rows)[:, :, None, None])
        mark = f"pooled-{hashlib.sha256(rows.data).hexdigest()[:16]}"
    return ZeroShotDataset(
        name=name,
        class_names=published.class_names,
        class_embeddings=embeddings,
        seen=torch.from_numpy(split.seen),
        unseen=torch.from_numpy(split.unseen),
        labels=torch.from_numpy(published.labels),
        trainval=torch.from_numpy(split.trainval),
        test_seen=torch.from_numpy(split.test_seen),
        test_unseen=torch.from_numpy(split.test_unseen),
        images=source,
        regions=regions,
        fingerprint=f"{name}-{mark}",
    )


def find_folder(root: Path, name: str) -> Path:
    """<root>/<name>, also below data/ or xlsa17/data/, as the archive unpacks."""
    places = [root / name, root / "data" / name, root / "xlsa17" / "data" / name]
    for place in places:
        if (place / "att_splits.mat").is_file():
            return place
    raise UserError(f"--root {root}: no file {places[0] / 'att_splits.mat'}; wanted the folder of xlsa17.zip")


def read_published(folder: Path, known: Known, features: Path | None = None) -> Published:
    """Read and check splits, labels and class embeddings.

    Labels come from `res101.mat`, or from the feature file `features`; if both have them they must agree.
    """
    path = folder / "att_splits.mat"
    found = read_mat(path, (*PARTS, "train_loc", "val_loc", "att", "original_att", "allclasses_names"))
    att = _embeddings(path, "att", found.get("att"), known)
    original = found.get("original_att")
    names = found.get("allclasses_names")
    if names is None:
        names = [f"class_{i:03d}" for i in range(1, known.classes + 1)]
    if not isinstance(names, list) or len(names) != known.classes or len(set(names)) != len(names):
        raise UserError(
            f"{path}: {len(set(names))} different class names; {known.folder} has {known.classes} classes: "
            "a file of another data set?"
        )
    labels = _labels(folder, known, features)
    parts = {name: whole_numbers(path, name, found.get(name), 1, known.images) for name in PARTS}
    split = check_split(path, parts, labels, names)
    if len(split.unseen) != known.unseen:
        raise UserError(
            f"{path}: {len(split.unseen)} unseen classes; {known.folder} has {known.unseen}: "
            "labels and split do not belong together"
        )
    if original is not None:
        original = _embeddings(path, "original_att", original, known)
    return Published(
        class_names=tuple(names),
        att=check_embeddings(path, att, names),
        original_att=None if original is None else check_embeddings(path, original, names),
        labels=labels,
        split=split,
        validation_classes=_validation_classes(path, found, labels, split, known),
    )


def validation_names(name: str, root: Path) -> tuple[str, ...]:
    """The classes that the authors of the proposed splits validate on.

    Only their names are taken: of the images in `train_loc` and `val_loc` many are test images.

    Raises:
        UserError: the file has no validation classes.
    """
    published = read_published(find_folder(root, KNOWN[name].folder), KNOWN[name])
    if published.validation_classes is None:
        raise UserError(f"{name}: att_splits.mat has no train_loc and val_loc; use folds of the seen classes")
    return tuple(published.class_names[i] for i in published.validation_classes.tolist())


def original_attributes(name: str, root: Path) -> np.ndarray | None:
    """`original_att` (C, m) as the file has it, or None."""
    path = find_folder(root, KNOWN[name].folder) / "att_splits.mat"
    found = read_mat(path, ("original_att",)).get("original_att")
    return None if found is None else _embeddings(path, "original_att", found, KNOWN[name])


def known_attributes(original: Tensor, seen: np.ndarray) -> Tensor:
    """`original_att` of AwA has -1 for missing ratings; they are replaced by the mean over the seen classes."""
    rows = original.clone()
    for column in torch.nonzero((rows < 0).any(0)).flatten().tolist():
        unknown = rows[:, column] < 0
        rated = torch.isin(torch.arange(len(rows)), torch.from_numpy(seen)) & ~unknown
        rows[unknown, column] = rows[rated, column].mean() if rated.any() else 0.0
    return rows


def pooled_features(path: Path, count: int) -> np.ndarray:
    """`features` (d, N) of res101.mat as float32 rows (N, d)."""
    found = read_mat(path, ("features",)).get("features")
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != count:
        shape = found.shape if isinstance(found, np.ndarray) else "missing"
        raise UserError(f"{path}: features is {shape}; wanted (d, {count})")
    rows = np.ascontiguousarray(found.T, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise UserError(
            f"{path}: features of {len(bad)} images are NaN or infinite, first {(bad[:3] + 1).tolist()}"
        )
    return rows


def find_images(path: Path, root: Path, published: Published) -> list[Path]:
    """The files of `image_files` below `root`. The stored paths are those of another machine; their ends must match.

    Raises:
        UserError: missing files, or files in the folder of another class than their label.
    """
    texts = read_mat(path, ("image_files",)).get("image_files")
    count = len(published.labels)
    if not isinstance(texts, list) or len(texts) != count:
        found = len(texts) if isinstance(texts, list) else "no"
        raise UserError(f"{path}: {found} image_files; wanted {count}")
    if not root.is_dir():
        raise UserError(f"--images: no folder {root}")
    parts = [[part for part in text.replace("\\", "/").split("/") if part] for text in texts]
    if any(not p or ".." in p for p in parts):
        raise UserError(f"{path}: image_files has empty paths or paths with ..")
    _check_class_folders(path, parts, published)
    for depth in range(max(map(len, parts)), 0, -1):
        if (root / Path(*parts[0][-depth:])).is_file():
            paths = [root / Path(*p[-depth:]) for p in parts]
            missing = [p for p in paths if not p.is_file()]
            if missing:
                raise UserError(
                    f"--images {root}: {len(missing)} of {count} images are missing, first {missing[0]}"
                )
            if len(set(paths)) != count:
                raise UserError(
                    f"{path}: {count - len(set(paths))} of the {count} image_files are listed twice; "
                    "features of parts of images (as in aPY) cannot be extracted from whole images"
                )
            return paths
    raise UserError(f"--images {root}: no image {'/'.join(parts[0][-3:])}, nor at any higher or lower level")


def _check_class_folders(path: Path, parts: list[list[str]], published: Published) -> None:
    ids = {plain_name(name): i for i, name in enumerate(published.class_names)}
    wrong = [
        i
        for i, p in enumerate(parts)
        if len(p) > 1 and ids.get(plain_name(p[-2]), published.labels[i]) != published.labels[i]
    ]
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{path}: {len(wrong)} images lie in the folder of another class than their label, first "
            f"{'/'.join(parts[first][-2:])} with label {published.class_names[published.labels[first]]}"
        )


def _embeddings(path: Path, name: str, values: object, known: Known) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] != known.classes:
        shape = values.shape if isinstance(values, np.ndarray) else "missing"
        raise UserError(
            f"{path}: {name} is {shape}; wanted (m, {known.classes}) as {known.folder} has {known.classes} "
            "classes: a file of another data set?"
        )
    return values.T


def _labels(folder: Path, known: Known, features: Path | None) -> np.ndarray:
    path, labels = folder / "res101.mat", None
    if path.is_file() or features is None:
        found = read_mat(path, ("labels",)).get("labels")
        labels = whole_numbers(path, "labels", found, 1, known.classes)
        if len(labels) != known.images:
            raise UserError(f"{path}: {len(labels)} labels; {known.folder} has {known.images} images")
    if features is None:
        assert labels is not None
        return labels
    own = read_hdf5(features, ("labels",)).arrays.get("labels")
    if own is None:
        if labels is None:
            raise UserError(f"{features}: no labels, and no file {path} to take them from")
        return labels
    checked = whole_numbers(features, "labels", own, 0, known.classes)
    if len(checked) != known.images:
        raise UserError(f"{features}: {len(checked)} labels; {known.folder} has {known.images} images")
    if labels is not None and (checked != labels).any():
        different = np.flatnonzero(checked != labels)
        raise UserError(
            f"{features}: {len(different)} labels differ from those of {path}, first {different[:3].tolist()}"
        )
    return checked


def _validation_classes(
    path: Path, found: dict[str, np.ndarray | list[str]], labels: np.ndarray, split: Split, known: Known
) -> np.ndarray | None:
    if "train_loc" not in found or "val_loc" not in found:
        return None
    train = labels[whole_numbers(path, "train_loc", found["train_loc"], 1, known.images)]
    held = np.unique(labels[whole_numbers(path, "val_loc", found["val_loc"], 1, known.images)])
    both = np.intersect1d(train, held)
    strange = np.setdiff1d(np.concatenate([train, held]), split.seen)
    if len(both) or len(strange):
        which = (
            f"{len(both)} classes are in both"
            if len(both)
            else f"{len(strange)} classes are not seen classes"
        )
        raise UserError(f"{path}: train_loc and val_loc: {which}")
    return held
