"""A folder of images with a table of class attributes: the format of a user's own data."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from fastzsl.data.dataset import ZeroShotDataset, split_per_class
from fastzsl.data.descriptions.reading import Descriptions, read_descriptions
from fastzsl.errors import UserError, first_line, nearest
from fastzsl.files.special import refuse_special, special_kind

NOT_IMAGES = frozenset({"thumbs.db", "desktop.ini"})
"""Files that desktop systems write into folders of images. They are ignored, as hidden files are."""

TEST_SEEN_SHARE = 0.2
MAX_PIXELS = 100_000_000
"""An image that claims more pixels is refused before it is decoded."""


class FolderImages:
    """Images read from files when they are needed.

    Attributes:
        paths: the files.
        skipped: one line for each image that was left out, saying what is wrong with it.
    """

    def __init__(self, paths: list[Path], skipped: tuple[str, ...] = ()) -> None:
        self.paths, self.skipped = paths, skipped

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """Raises `UserError` naming the file if it is not a complete image, or is too large."""
        return read_image(self.paths[index])

    def mask(self, index: int) -> np.ndarray | None:
        return None

    def describe(self, index: int) -> str:
        return str(self.paths[index])


def is_image_file(path: Path) -> bool:
    """Whether a path in a folder of images must be an image: not hidden, not a folder, not a desktop system's file.

    True also for a FIFO, a socket or a device, so that reading it reports the error.
    """
    if path.name.startswith(".") or path.name.lower() in NOT_IMAGES:
        return False
    return path.is_file() or bool(special_kind(path))


def read_image(source: Path | BinaryIO, name: str = "") -> Image.Image:
    """Decode one image, a file or a binary file object called `name`, to RGB.

    Raises:
        UserError: not an image, truncated, or a decompression bomb; the file is named.
    """
    if isinstance(source, Path):
        refuse_special(source, "an image")
    path = name or source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise UserError(
                        f"{path}: {width} × {height} pixels are more than the limit of {MAX_PIXELS:,}"
                    )
                return image.convert("RGB")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's decoders raise any type on a damaged file
        raise UserError(f"{path}: not a readable image ({first_line(error)})") from None


def image_folder(root: Path | str, seed: int = 0, skip_bad_images: bool = False) -> ZeroShotDataset:
    """Read `<root>/images/<class>/*` and `<root>/classes.csv` (columns `class,split,<attribute>...`).

    A fifth of each seen class's images, drawn from `seed`, is test_seen. Hidden files are ignored; every other file
    must be an image. All classes may be seen, and an unseen class may have no images; then there is no test on unseen
    classes, or not on that one. Without the column `split` the classes with images are seen and the others unseen.

    Args:
        root: the folder.
        seed: decides the split of the seen classes' images.
        skip_bad_images: decode every image first, and leave out those that cannot be read; `images.skipped` lists
            them.

    Raises:
        UserError: anything wrong with table or folder, naming file, field, what was found and what was wanted.
    """
    root = Path(root)
    table, folder = root / "classes.csv", root / "images"
    if not root.is_dir():
        raise UserError(f"--root: no folder {root}")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; wanted images in {folder}/<class>/")
    present = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = read_class_table(table, present)
    names, splits = found.names, found.splits
    imageless = {n for n, s in zip(names, splits or ["unseen"] * len(names)) if s == "unseen"}
    paths, labels = _list_images(folder, table, names, present, imageless)
    skipped: tuple[str, ...] = ()
    if skip_bad_images:
        with ThreadPoolExecutor() as pool:
            faults = list(pool.map(_fault, paths))
        skipped = tuple(fault for fault in faults if fault)
        labels = [label for label, fault in zip(labels, faults) if not fault]
        paths = [path for path, fault in zip(paths, faults) if not fault]
    pictured = set(labels)
    if splits is None:
        splits = ["seen" if label in pictured else "unseen" for label in range(len(names))]
    for label, name in enumerate(names):
        if label not in pictured and splits[label] == "seen":
            raise UserError(
                f'{folder / name}: class {name} has no images; remove it from {table}, make its split "unseen", '
                "or add some"
            )

    label_ids = torch.tensor(labels)
    is_unseen = torch.tensor([split == "unseen" for split in splits])
    indices = torch.arange(len(labels))
    of_unseen = is_unseen[label_ids]
    if is_unseen.all():
        raise UserError(f'{table}: every class has split "unseen"; wanted seen classes to train on')
    trainval, test_seen = split_per_class(
        indices[~of_unseen], label_ids[~of_unseen], TEST_SEEN_SHARE, torch.Generator().manual_seed(seed)
    )
    return ZeroShotDataset(
        name=root.resolve().name,
        class_names=tuple(names),
        class_embeddings=torch.from_numpy(found.values).float(),
        seen=torch.nonzero(~is_unseen).flatten(),
        unseen=torch.nonzero(is_unseen).flatten(),
        labels=label_ids,
        trainval=trainval,
        test_seen=test_seen,
        test_unseen=indices[of_unseen],
        images=FolderImages(paths, skipped),
        attribute_names=tuple(found.attributes),
        fingerprint=f"folder-{fingerprint(paths, root)}",
    )


def read_class_table(table: Path, folders: Sequence[str] = ()) -> Descriptions:
    """A complete classes.csv: numbers in every column but class and split, and no empty cell.

    Args:
        folders: names of the folders of images, by which the column of class names is found.

    Raises:
        UserError: anything that is missing or unclear.
    """
    if not table.is_file():
        refuse_special(table, "a table")
        raise UserError(f"no file {table}; wanted a table with columns class,split,<attribute>...")
    found = read_descriptions(table, folders)
    found.refuse_words()
    found.refuse_missing()
    found.refuse_repeated()
    return found


def _list_images(
    folder: Path, table: Path, names: list[str], present: list[str], imageless: set[str]
) -> tuple[list[Path], list[int]]:
    """The images and their classes; `present` are the folders, and the classes `imageless` may have none."""
    missing = [name for name in names if name not in set(present) | imageless]
    if missing:
        raise UserError(
            f"{table}: class {missing[0]} has no folder in {folder}{nearest(missing[0], present)}"
            + (f" ({len(missing)} classes have none)" if len(missing) > 1 else "")
        )
    unknown = [name for name in present if name not in set(names)]
    if unknown:
        raise UserError(
            f"{folder / unknown[0]}: class {unknown[0]} has no row in {table}{nearest(unknown[0], names)}"
            + (f" ({len(unknown)} folders have none)" if len(unknown) > 1 else "")
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        own = sorted(
            p for p in ((folder / name).iterdir() if name in set(present) else ())
            if is_image_file(p)
        )  # fmt: skip
        paths += own
        labels += [label] * len(own)
    return paths, labels


def _fault(path: Path) -> str:
    """What is wrong with an image; an empty string if nothing is."""
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return ""


def fingerprint(paths: list[Path], root: Path) -> str:
    """Changes with an image's name below `root`, its size or its modification time, but not with `root` itself."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(f"\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
