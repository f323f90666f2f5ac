"""Make and check an image folder for `image_folder` from a folder of images and a spreadsheet."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastzsl.data.descriptions.names import plain_name
from fastzsl.data.descriptions.reading import Descriptions
from fastzsl.data.formats.folder import is_image_file, read_image
from fastzsl.errors import UserError, nearest
from fastzsl.features.extraction import Progress


@dataclass
class Material:
    """Classes with their images and attributes.

    Attributes:
        names: C names, those of the image folders.
        images: the files of each class.
        unseen: (C,) bool.
        attributes: m names.
        values: (C, m) float64, as they will be written.
        notes: lines of information for the user.
    """

    names: list[str]
    images: list[list[Path]]
    unseen: np.ndarray
    attributes: list[str]
    values: np.ndarray
    notes: list[str] = field(default_factory=list)


def list_class_folders(images: Path) -> dict[str, Path]:
    """Every visible folder directly below `images`, by its name."""
    if not images.is_dir():
        raise UserError(f"--images: no folder {images}")
    folders = {p.name.strip(): p for p in sorted(images.iterdir()) if p.is_dir() and p.name[0] != "."}
    if not folders:
        raise UserError(f"--images {images}: no folders in it; wanted a folder of images for each class")
    return folders


def match_classes(
    sheet: Descriptions, folders: dict[str, Path], table: Path, partial: bool, keep_rows: bool = False
) -> tuple[list[str], list[int], list[str]]:
    """Match folders with rows: class names, which are the folders' names if there is one, row numbers, and notes.

    Names match if they are equal, or differ only in case, spaces, underscores, hyphens and a leading "001.".

    Args:
        partial: leave out a row or a folder without the other.
        keep_rows: keep a row without a folder, under its own name.

    Raises:
        UserError: two rows or two folders of one name; a row or folder without the other, unless `partial` or
            `keep_rows` allows it.
    """
    rows: dict[str, int] = {}
    for i, name in enumerate(sheet.names):
        if plain_name(name) in rows:
            first = sheet.names[rows[plain_name(name)]]
            raise UserError(
                f'{table}: rows of "{first}" and "{name}" are of one class; wanted one row a class'
            )
        rows[plain_name(name)] = i
    plain: dict[str, str] = {}
    for name in folders:
        if plain_name(name) in plain:
            raise UserError(f'--images: folders "{plain[plain_name(name)]}" and "{name}" are of one class')
        plain[plain_name(name)] = name
    without_row = [name for key, name in plain.items() if key not in rows]
    without_folder = [sheet.names[i] for key, i in rows.items() if key not in plain]
    notes = []
    for lacking, what, known in (
        (without_row, f"folders have no row in {table}", sheet.names),
        (without_folder, "rows have no folder of images", list(folders)),
    ):
        if lacking and lacking is without_folder and keep_rows:
            notes.append(f"unseen classes without images: {_examples(lacking)}")
            for name in lacking:
                if "/" in name or "\0" in name or name in (".", ".."):
                    raise UserError(f"{table}: {name} cannot be the name of a folder")
            continue
        if lacking and not partial:
            other = ", --keep-rows keeps them as unseen" if lacking is without_folder else ""
            raise UserError(
                f"{len(lacking)} {what}, first {lacking[0]}{nearest(lacking[0], known)} "
                f"(--partial leaves such classes out{other})"
            )
        if lacking:
            notes.append(f"left out, {what}: {_examples(lacking)}")
    both = plain.keys() & rows.keys()
    if not both:
        raise UserError(f"no row of {table} has the name of a folder of images")
    kept = sorted(rows if keep_rows else both, key=rows.__getitem__)
    names = [plain.get(key, sheet.names[rows[key]].strip()) for key in kept]
    return names, [rows[key] for key in kept], notes


def list_images(
    folders: Sequence[Path | None], skip_bad: bool, progress: Progress = lambda images: None
) -> tuple[list[list[Path]], list[str]]:
    """Each folder's images, after decoding all of them, and notes on unreadable files and on duplicates.

    A class without a folder has no images.

    Raises:
        UserError: a file that is not a complete image, unless `skip_bad`.
    """
    listed = [
        sorted(
            p for p in (folder.iterdir() if folder else ())
            if is_image_file(p)
        )
        for folder in folders
    ]  # fmt: skip
    everything = [path for own in listed for path in own]
    faults: dict[Path, str] = {}
    digests: dict[str, list[Path]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for path, (fault, digest) in zip(everything, pool.map(_examine, everything)):
            progress(1)
            if fault:
                faults[path] = fault
            else:
                digests[digest].append(path)
    if faults and not skip_bad:
        first = next(iter(faults.values()))
        raise UserError(
            f"{len(faults)} of {len(everything)} images cannot be read, first {first} "
            "(--skip-bad-images leaves them out)"
        )
    notes = [f"left out: {fault}" for fault in faults.values()]
    twice = [paths for paths in digests.values() if len(paths) > 1]
    across = [paths for paths in twice if len({path.parent for path in paths}) > 1]
    if across:
        shown = " = ".join(f"{p.parent.name}/{p.name}" for p in across[0])
        notes.append(f"{len(across)} images are in several classes, so the test is not valid: first {shown}")
    if len(twice) > len(across):
        notes.append(f"{len(twice) - len(across)} images are duplicates within their class")
    return [[path for path in own if path not in faults] for own in listed], notes


def choose_unseen(
    names: Sequence[str],
    splits: Sequence[str] | None,
    named: Sequence[str],
    share: float,
    seed: int,
    imageless: Collection[str] = (),
) -> tuple[np.ndarray, str]:
    """Which classes are unseen, (C,) bool, and a note on how they were chosen.

    Names given by the user are used first, else the spreadsheet's column, else a random share of the classes with
    images. Classes without images are unseen.

    Raises:
        UserError: a named class does not exist, the spreadsheet calls a class without images seen, or there are fewer
            than two seen classes.
    """
    if named:
        plain = {plain_name(name): i for i, name in enumerate(names)}
        unseen = np.zeros(len(names), dtype=bool)
        for name in named:
            if plain_name(name) not in plain:
                raise UserError(f"--unseen: no class {name}{nearest(name, list(names))}")
            unseen[plain[plain_name(name)]] = True
        note = "unseen classes: as named"
    elif splits is not None:
        unseen = np.array([split == "unseen" for split in splits])
        note = "unseen classes: as the spreadsheet says"
        wrong = [name for name, is_unseen in zip(names, unseen) if name in imageless and not is_unseen]
        if wrong:
            raise UserError(f"class {wrong[0]} is seen in the spreadsheet but has no images to train on")
    else:
        pictured = np.flatnonzero([name not in imageless for name in names])
        count = max(1, round(share * len(pictured))) if share else 0
        unseen = np.zeros(len(names), dtype=bool)
        unseen[np.random.default_rng(seed).permutation(pictured)[:count]] = True
        note = f"unseen classes: {count} drawn at random (--unseen-share {share:g}, --seed {seed})"
    unseen |= np.array([name in imageless for name in names])
    if (~unseen).sum() < 2:
        raise UserError(f"{int((~unseen).sum())} seen classes; wanted at least 2")
    if not any(is_unseen and name not in imageless for name, is_unseen in zip(names, unseen)):
        note += "; no test on unseen classes, because none has images"
    return unseen, note


def check_place(root: Path, images: Path) -> None:
    """Raise `UserError` if `root` is in use already, or is in the folder of images, where it would become a class."""
    if root.is_file():
        raise UserError(f"--out {root} is a file; wanted a folder to make")
    if root.exists() and Path.cwd().is_relative_to(root.resolve()):
        raise UserError(
            f"--out {root} is the folder in which this program runs; wanted the name of a folder to make"
        )
    if root.exists() and any(root.iterdir()):
        raise UserError(f"--out {root} is not empty; choose another, or remove it")
    if root.resolve().is_relative_to(images.resolve()):
        raise UserError(f"--out {root} lies in --images {images}, where it would become a class")


def write_image_folder(material: Material, root: Path, copy: bool) -> None:
    """Make `root` with images/<class>/* and classes.csv; it gets its name when it is complete.

    Args:
        copy: copy the images; otherwise make symbolic links to them.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.{os.getpid()}.partial")
    try:
        for name, paths in zip(material.names, material.images):
            if not paths:
                continue
            folder = partial / "images" / name
            folder.mkdir(parents=True)
            for path in paths:
                if copy:
                    shutil.copy2(path, folder / path.name)
                else:
                    (folder / path.name).symlink_to(path.resolve())
        with open(
            partial / "classes.csv", "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            writer = csv.writer(file)
            writer.writerow(["class", "split", *material.attributes])
            for name, unseen, row in zip(material.names, material.unseen, material.values):
                writer.writerow([name, "unseen" if unseen else "seen", *(f"{value:.9g}" for value in row)])
        if root.exists():
            root.rmdir()
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _examine(path: Path) -> tuple[str, str]:
    """What is wrong with an image, if anything, and a digest of its bytes."""
    try:
        read_image(path)
        with open(path, "rb") as file:
            return "", hashlib.file_digest(file, "sha256").hexdigest()
    except UserError as error:
        return str(error), ""


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
