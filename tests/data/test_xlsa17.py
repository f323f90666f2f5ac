"""The proposed splits: the real split files at their true sizes, and every rule that a file can break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from fastzsl.data.formats.hdf5 import dataset_arrays, hdf5_dataset
from fastzsl.data.formats.xlsa17 import KNOWN, known_attributes, validation_names, xlsa17
from fastzsl.data.held_out import SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.features.store import FileRegions
from fastzsl.protocol.folds import NamedClasses
from tests.data.xlsa17_files import VALIDATION, labels_for, make_root, real_split

SIZES = {  # trainval, test_seen, test_unseen, m: the figures that the papers print
    "awa1": (19832, 4958, 5685, 85),
    "awa2": (23527, 5882, 7913, 85),
    "cub": (7057, 1764, 2967, 312),
    "sun": (10320, 2580, 1440, 102),
    "apy": (5932, 1483, 7924, 64),
    "flo": (5631, 1403, 1155, 1024),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_real_splits_are_read_as_the_papers_print_them(tmp_path: Path, name: str) -> None:
    data = xlsa17(name, make_root(tmp_path, name))
    known = KNOWN[name]
    assert (len(data.trainval), len(data.test_seen), len(data.test_unseen), data.embedding_dim) == SIZES[name]
    assert (len(data.seen), len(data.unseen)) == (known.classes - known.unseen, known.unseen)
    assert (
        len(data.labels) == known.images == len(data.trainval) + len(data.test_seen) + len(data.test_unseen)
    )
    raw = scipy.io.loadmat(real_split(name))
    np.testing.assert_array_equal(data.trainval.numpy() + 1, raw["trainval_loc"].ravel().astype(int))
    np.testing.assert_array_equal(data.class_embeddings.numpy(), raw["att"].T.astype(np.float32))
    features = scipy.io.loadmat(tmp_path / known.folder / "res101.mat")["features"]
    np.testing.assert_array_equal(
        data.read_regions(data.test_seen[:5])[:, 0].T, features[:, data.test_seen[:5]]
    )


@pytest.mark.parametrize("name", ["awa1", "awa2", "sun", "flo"])
def test_validation_never_touches_a_test_image_although_train_loc_does(tmp_path: Path, name: str) -> None:
    root = make_root(tmp_path, name)
    data = xlsa17(name, root)
    raw = scipy.io.loadmat(real_split(name))
    train_loc = raw["train_loc"].ravel().astype(int) - 1
    test_seen = set(data.test_seen.tolist())
    assert set(train_loc.tolist()) & test_seen, "the trap is no longer there?"
    problem = SeenClassesOnly(data).problem(NamedClasses(validation_names(name, root)).problems()[0])
    used = set(problem.image_ids.tolist())
    assert used == set(data.trainval.tolist())
    assert not used & (test_seen | set(data.test_unseen.tolist()))
    assert len(problem.unseen) == VALIDATION[name]
    unseen_names = {data.class_names[i] for i in data.unseen.tolist()}
    assert not unseen_names & set(problem.class_names)
    for i in range(0, len(problem.labels), 997):  # labels still name the same classes
        there = data.class_names[data.labels[problem.image_ids[i]]]
        assert problem.class_names[problem.labels[i]] == there


def test_without_train_loc_the_authors_validation_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path, "cub")
    with pytest.raises(UserError, match="no train_loc and val_loc"):
        validation_names("cub", root)


@pytest.mark.slow
def test_awa2_with_features_of_the_true_size(tmp_path: Path) -> None:
    data = xlsa17("awa2", make_root(tmp_path, "awa2", dimension=2048))
    assert data.regions is not None
    assert data.regions.feature_shape == (2048, 1, 1)
    assert len(data.regions) == 37322


def test_original_attributes_and_what_nobody_rated(tmp_path: Path) -> None:
    root = make_root(tmp_path, "awa1")
    data = xlsa17("awa1", root, class_embeddings="original_att")
    raw = scipy.io.loadmat(real_split("awa1"))["original_att"].T
    rated = raw >= 0
    assert (~rated).any()
    np.testing.assert_allclose(data.class_embeddings.numpy()[rated], raw[rated], rtol=1e-6)
    assert float(data.class_embeddings.min()) >= 0
    filled = known_attributes(torch.tensor([[-1.0, 2], [4, -1], [8, -1]]), np.array([1, 2]))
    assert filled.tolist() == [[6, 2], [4, 0], [8, 0]], "only seen classes count"


def test_flo_gets_names_and_no_original_attributes(tmp_path: Path) -> None:
    root = make_root(tmp_path, "flo")
    assert xlsa17("flo", root).class_names[:2] == ("class_001", "class_002")
    with pytest.raises(UserError, match="no original_att"):
        xlsa17("flo", root, class_embeddings="original_att")


def sun_split(variable: str) -> np.ndarray:
    return scipy.io.loadmat(real_split("sun"))[variable].astype(np.int64)


def with_entry(variable: str, place: int, value: int | Callable[[], int]) -> dict[str, np.ndarray]:
    array = sun_split(variable)
    array[place] = value() if callable(value) else value
    return {variable: array}


BROKEN: dict[str, tuple[Callable[[], dict[str, np.ndarray | None]], str]] = {
    "an index 0": (
        lambda: with_entry("trainval_loc", 3, 0),
        r"1 entries of trainval_loc are outside 1 to 14340",
    ),
    "an index too large": (
        lambda: with_entry("test_seen_loc", 3, 14341),
        r"1 entries of test_seen_loc .*\[14341\]",
    ),
    "an index twice": (
        lambda: with_entry("trainval_loc", 3, int(sun_split("trainval_loc")[4, 0])),
        "trainval_loc names 1 images twice",
    ),
    "a test image in training": (
        lambda: with_entry("trainval_loc", 3, int(sun_split("test_seen_loc")[4, 0])),
        r"1 images are in trainval_loc and test_seen_loc",
    ),
    "an unseen image in training": (
        lambda: with_entry("trainval_loc", 3, int(sun_split("test_unseen_loc")[4, 0])),
        r"1 images are in trainval_loc and test_unseen_loc",
    ),
    "half an index": (
        lambda: {"trainval_loc": sun_split("trainval_loc") + 0.5},
        r"10320 entries of trainval_loc are not whole numbers",
    ),
    "no trainval_loc": (lambda: {"trainval_loc": None}, "trainval_loc is missing"),
    "no att": (lambda: {"att": None}, r"att is missing; wanted \(m, 717\)"),
    "att the other way round": (
        lambda: {"att": sun_split("att").T},
        r"att is \(717, 102\); wanted \(m, 717\)",
    ),
    "NaN in att": (
        lambda: {"att": np.where(np.arange(717) == 5, np.nan, 1.0) * np.ones((102, 1))},
        "embeddings of 1 classes are NaN",
    ),
    "labels from 0": (
        lambda: {"labels": labels_for("sun", scipy.io.loadmat(real_split("sun")))[:, None] - 1},
        r"entries of labels are outside 1 to 717, first \[0",
    ),
    "labels of other images": (
        lambda: {"labels": np.roll(labels_for("sun", scipy.io.loadmat(real_split("sun"))), 1)[:, None]},
        "labels and split do not belong together",
    ),
    "too few labels": (lambda: {"labels": np.ones((9, 1))}, "9 labels; SUN has 14340 images"),
    "no labels": (lambda: {"labels": None}, "labels is missing"),
    "features of other images": (
        lambda: {"features": np.ones((4, 9))},
        r"features is \(4, 9\); wanted \(d, 14340\)",
    ),
    "NaN features": (
        lambda: {"features": np.where(np.arange(14340) == 7, np.nan, 1.0) * np.ones((4, 1))},
        r"features of 1 images are NaN or infinite, first \[8\]",
    ),
    "names of another data set": (
        lambda: {"allclasses_names": np.array([["a"], ["b"]], dtype=object)},
        "2 different class names; SUN has 717",
    ),
    "train and val share classes": (
        lambda: {"val_loc": sun_split("train_loc")},
        "train_loc and val_loc: .* classes are in both",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_every_broken_rule_is_named_with_a_count(tmp_path: Path, fault: str) -> None:
    changes, said = BROKEN[fault]
    with pytest.raises(UserError, match=said):
        xlsa17("sun", make_root(tmp_path, "sun", **changes()))


def test_a_file_of_another_data_set_is_named(tmp_path: Path) -> None:
    make_root(tmp_path, "awa1")
    (tmp_path / "AWA1").rename(tmp_path / "AWA2")
    with pytest.raises(UserError, match="30475 labels; AWA2 has 37322 images"):
        xlsa17("awa2", tmp_path)


def test_truncated_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*CUB.att_splits\.mat; wanted the folder of xlsa17\.zip"):
        xlsa17("cub", tmp_path)
    make_root(tmp_path, "apy")
    for name in ("att_splits.mat", "res101.mat"):
        path = tmp_path / "APY" / name
        content = path.read_bytes()
        for length in (0, 3, 100, 130, 1000, len(content) // 2, len(content) - 9):
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match=name):
                xlsa17("apy", tmp_path)
        path.write_bytes(content)
    xlsa17("apy", tmp_path)


@pytest.fixture
def image_files(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """One real image linked under all 11,788 names of CUB, and the names as another machine had them."""
    split = scipy.io.loadmat(real_split("cub"))
    names = [str(n[0]) for n in split["allclasses_names"].ravel()]
    labels = labels_for("cub", split)
    root = tmp_path / "CUB_200_2011"
    Image.new("RGB", (8, 8), "red").save(tmp_path / "one.jpg")
    files = []
    for name in names:
        (root / "images" / name).mkdir(parents=True)
    for i, label in enumerate(labels.tolist()):
        end = f"images/{names[label - 1]}/image_{i:05d}.jpg"
        (root / end).hardlink_to(tmp_path / "one.jpg")
        files.append(f"/BS/far/away/CUB_200_2011/{end}")
    return root, np.array(files, dtype=object)[:, None]


def test_images_are_found_by_the_ends_of_foreign_paths(
    tmp_path: Path, image_files: tuple[Path, np.ndarray]
) -> None:
    root, files = image_files
    make_root(tmp_path, "cub", image_files=files)
    for given in (root, root / "images", root.parent):
        data = xlsa17("cub", tmp_path, images=given)
        assert data.images is not None
        assert data.regions is None
        assert data.images.describe(4711).endswith(str(files[4711, 0])[-40:])
        assert data.images.image(4711).size == (8, 8)
    assert data.fingerprint.startswith("cub-")
    with pytest.raises(UserError, match=r"no image .* at any higher or lower level"):
        xlsa17("cub", tmp_path, images=tmp_path / "CUB")
    next((root / "images").glob("*/image_00007.jpg")).unlink()
    with pytest.raises(UserError, match=r"1 of 11788 images are missing, first .*image_00007\.jpg"):
        xlsa17("cub", tmp_path, images=root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f[:-1], "11787 image_files; wanted 11788"),
        (lambda f: np.roll(f, 1, axis=0), "images lie in the folder of another class than their label"),
        (lambda f: np.concatenate([[["/a/../b.jpg"]], f[1:]]), r"paths with \.\."),
        (lambda f: np.concatenate([f[:-1], [[""]]]), "empty paths"),
    ],
)
def test_wrong_image_files_are_refused(
    tmp_path: Path,
    image_files: tuple[Path, np.ndarray],
    change: Callable[[np.ndarray], np.ndarray],
    said: str,
) -> None:
    root, files = image_files
    make_root(tmp_path, "cub", image_files=change(files).astype(object))
    with pytest.raises(UserError, match=said):
        xlsa17("cub", tmp_path, images=root)


def test_features_of_crops_cannot_come_from_whole_images(tmp_path: Path) -> None:
    """aPY names the same image once for each object in it."""
    (tmp_path / "one.jpg").write_bytes(b"")
    make_root(tmp_path, "apy", image_files=np.array([["/x/one.jpg"]] * 15339, dtype=object))
    with pytest.raises(UserError, match="15338 of the 15339 image_files are listed twice"):
        xlsa17("apy", tmp_path, images=tmp_path)


def write_73(path: Path, variables: dict[str, np.ndarray]) -> None:
    """As MATLAB's save -v7.3 does: transposed, cells as references, 512 bytes before the HDF5 content."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if value.dtype == object:
                cells = []
                for i, cell in enumerate(value.ravel()):
                    codes = np.array([[ord(c)] for c in str(cell[0])], dtype=np.uint16)
                    cells.append(file.create_dataset(f"#refs#/{i}", data=codes).ref)
                file.create_dataset(name, data=np.array(cells, dtype=h5py.ref_dtype)[None])
            else:
                file.create_dataset(name, data=value.T)
    with open(path, "rb+") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


def test_version_73_of_matlab_gives_the_same(tmp_path: Path) -> None:
    data = xlsa17("awa1", make_root(tmp_path, "awa1"))
    for name in ("att_splits.mat", "res101.mat"):
        path = tmp_path / "AWA1" / name
        variables = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        write_73(path, variables)
    again = xlsa17("awa1", tmp_path)
    assert again.class_names == data.class_names
    for field in ("class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen"):
        assert torch.equal(getattr(again, field), getattr(data, field)), field
    assert torch.equal(again.read_regions(torch.arange(9)), data.read_regions(torch.arange(9)))


def hdf5_of(path: Path, name: str, root: Path, **changes: np.ndarray | None) -> Path:
    """The data set as an HDF5 file with maps of the true number of images."""
    arrays = dict(dataset_arrays(xlsa17(name, make_root(root, name))))
    arrays["feature_map"] = np.zeros((KNOWN[name].images, 2, 2, 2), dtype=np.float16)
    with h5py.File(path, "w") as file:
        for key, value in {**arrays, **changes}.items():
            if value is not None:
                file[key] = value
    return path


@pytest.mark.parametrize("name", ["cub", "sun"])
def test_the_same_data_set_from_one_hdf5_file(tmp_path: Path, name: str) -> None:
    data = hdf5_dataset(hdf5_of(tmp_path / "f.h5", name, tmp_path))
    truth = xlsa17(name, tmp_path)
    assert data.class_names == truth.class_names
    for field in ("class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen"):
        assert torch.equal(getattr(data, field), getattr(truth, field)), field
    again = xlsa17(name, tmp_path, features=tmp_path / "f.h5")
    assert again.regions is not None
    assert again.regions.feature_shape == (2, 2, 2)
    (tmp_path / KNOWN[name].folder / "res101.mat").unlink()
    again = xlsa17(name, tmp_path, features=tmp_path / "f.h5")
    assert torch.equal(again.labels, truth.labels)


HDF5_FAULTS: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "no labels": ({"labels": None}, "labels is missing"),
    "labels of other images": ({"labels": np.zeros(5)}, r"5 labels for feature maps of shape \(14340"),
    "negative labels": ({"labels": np.full(14340, -1)}, r"14340 entries of labels are outside 0"),
    "more labels than classes": ({"labels": np.arange(14340)}, "labels run to 14339 but att has 717 rows"),
    "att on its side": ({"att": np.zeros((102, 717))}, "labels run to 716 but att has 102 rows"),
    "no att": ({"att": None}, "att is missing"),
    "indices from 1": ({"trainval_loc": np.array([14340])}, "outside 0 to 14339"),
    "no split": ({"test_unseen_loc": None}, "test_unseen_loc is missing"),
    "NaN att": ({"att": np.full((717, 102), np.nan)}, "embeddings of 717 classes are NaN"),
    "names of fewer classes": ({"allclasses_names": np.array([b"a"])}, "1 class names"),
}


@pytest.mark.parametrize("fault", HDF5_FAULTS)
def test_every_fault_of_an_hdf5_data_set_is_named(tmp_path: Path, fault: str) -> None:
    changes, said = HDF5_FAULTS[fault]
    with pytest.raises(UserError, match=said):
        hdf5_dataset(hdf5_of(tmp_path / "f.h5", "sun", tmp_path, **changes))


def test_features_whose_labels_differ_are_refused(tmp_path: Path) -> None:
    path = hdf5_of(tmp_path / "f.h5", "sun", tmp_path)
    with h5py.File(path, "r+") as file:
        labels = file["labels"][...]
        labels[:3] = labels[3:6]
        file["labels"][...] = labels
    with pytest.raises(UserError, match=r"labels differ from those of .*res101\.mat"):
        xlsa17("sun", tmp_path, features=path)


def test_large_feature_files_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastzsl.features.store.IN_MEMORY_BYTES", 1000)
    data = hdf5_dataset(hdf5_of(tmp_path / "f.h5", "sun", tmp_path))
    assert isinstance(data.regions, FileRegions)
    assert data.read_regions(data.trainval[:3]).shape == (3, 4, 2)
