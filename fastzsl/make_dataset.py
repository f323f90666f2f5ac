"""`python -m fastzsl.make_dataset`: a folder of images and a spreadsheet become a checked data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from fastzsl.command.console import open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.data.descriptions.names import plain_name
from fastzsl.data.descriptions.reading import Descriptions, read_descriptions
from fastzsl.data.formats.folder import image_folder
from fastzsl.data.formats.hdf5 import dataset_arrays
from fastzsl.data.formats.xlsa17_writer import write_xlsa17
from fastzsl.data.make.assemble import (
    Material,
    check_place,
    choose_unseen,
    list_class_folders,
    list_images,
    match_classes,
    write_image_folder,
)
from fastzsl.data.make.attributes import describe_attributes, fill_missing, unequal_scales
from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.features.extraction import extract_features
from fastzsl.features.opening import load_regions
from fastzsl.text.class_texts import texts_in_file, texts_of
from fastzsl.text.described import Described, describe_classes, read_record, write_record
from fastzsl.text.opening import Kind, open_encoder

DESCRIPTION = """Make a data set of your own images.

The images of each class are in one folder. The spreadsheet, saved as CSV, has one row for each class. Its columns may
have any names and order: one has the class names, one may say which classes are unseen, and those with numbers (or yes
and no) are the attributes. Without attributes, --describe words makes class embeddings from the class names. Everything
is checked first, and OUT is made only if no error is found:

OUT/images/<class>/*, OUT/classes.csv, OUT/report.json, and with --features also OUT/features.h5 (feature maps) and
OUT/xlsa17 (res101.mat and att_splits.mat), which other programs read.
"""


@dataclass(frozen=True)
class Settings:
    """What to make.

    Args:
        images: folder with a folder of images for each class.
        out: the data set's folder.
        attributes: table with a row for each class, or an .npz or .mat file of class embeddings.
        describe: instead of attributes: the encoder that describes the classes by their names or --texts; see
            `python -m fastzsl.describe`.
        describe_model: its model's name, file or folder.
        texts: text file with NAME=TEXT a line for classes that their names do not describe.
        class_column: header of the column of class names; default: the one with the folders' names.
        split_column: header of a column with seen or unseen (or train and test); default: one named split.
        leave_out: headers of columns that are not attributes.
        unseen: names of the unseen classes, or a file with one name in each line.
        unseen_share: share of the classes that are drawn as unseen if neither names nor a column say which. With 0 all
            classes with images are trained on, and there is no test on unseen classes.
        seed: of this draw, and of the split of the seen classes' images.
        missing: what to do with empty cells: stop, or take the seen classes' mean, or 0.
        partial: leave out classes that have only a row or only a folder, instead of stopping.
        keep_rows: keep rows without a folder, as unseen classes without images.
        pictures: "link" makes symbolic links to the images, "copy" copies them.
        skip_bad_images: leave out images that cannot be read, instead of stopping.
        features: also extract features and write both formats of other programs.
        backbone: for the features; see `python -m fastzsl.info`.
        backbone_weights: file with its weights, or "random".
    """

    images: Path
    out: Path
    attributes: Path | None = None
    describe: Kind | None = None
    describe_model: str | None = None
    texts: Path | None = None
    class_column: str | None = None
    split_column: str | None = None
    leave_out: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    unseen_share: float = 0.25
    seed: int = 0
    missing: Literal["error", "mean", "zero"] = "error"
    partial: bool = False
    keep_rows: bool = False
    pictures: Literal["link", "copy"] = "link"
    skip_bad_images: bool = False
    features: bool = False
    backbone: str = "efficientnet_lite0"
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.unseen_share < 1:
            raise UserError(f"--unseen-share is {self.unseen_share}; wanted a share from 0 to below 1")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; wanted 0 or more")
        if (self.attributes is None) == (self.describe is None):
            given = "both were" if self.describe else "neither was"
            raise UserError(f"{given} given; wanted --attributes TABLE or --describe words")
        if self.describe is None and (self.describe_model or self.texts):
            raise UserError(
                "--describe-model and --texts need --describe; wanted for example --describe words"
            )


def make_dataset(settings: Settings, console: Console | None = None) -> Path:
    """Check everything, then make the folder. Returns its path.

    Raises:
        UserError: anything wrong with images, table or options; then no folder is made.
    """
    console = console or open_console()
    backbone = load_backbone(settings.backbone, settings.backbone_weights) if settings.features else None
    material, record = _gather(settings, console)
    write_image_folder(material, settings.out, settings.pictures == "copy")
    if record is not None:  # texts describe the classes: a run on this data set knows by which model
        write_record(settings.out / "classes.csv", record)
    data = image_folder(settings.out, settings.seed)
    report = {
        "seen_classes": len(data.seen),
        "unseen_classes": len(data.unseen),
        "pictures": {name: len(paths) for name, paths in zip(material.names, material.images)},
        "trainval": len(data.trainval),
        "test_seen": len(data.test_seen),
        "test_unseen": len(data.test_unseen),
        "attributes": len(material.attributes),
        "notes": material.notes,
    }
    (settings.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for note in material.notes:
        console.print(f"- {note}", highlight=False, markup=False)
    console.print(
        f"{settings.out}: {len(data.seen)} seen and {len(data.unseen)} unseen classes, {len(data.labels)} images "
        f"({len(data.trainval)} to train, {len(data.test_seen)} and {len(data.test_unseen)} to test)",
        highlight=False, markup=False,
    )  # fmt: skip
    if backbone is not None and data.images is not None:
        path = settings.out / "features.h5"
        with progress_bars(console) as progress:
            task = progress.add_task("features", total=len(data.labels))
            extract_features(
                data.images, backbone, path, fingerprint=data.fingerprint, weights=settings.backbone_weights,
                arrays=dataset_arrays(data),
                progress=lambda count: progress.advance(task, count),
            )  # fmt: skip
        write_xlsa17(data.with_regions(load_regions(path)), settings.out / "xlsa17")
    flags = ""
    if unequal_scales(material.values, material.unseen):
        flags = " --embedding-normalisation standardise"
    console.print(
        f"next: python -m fastzsl.train --dataset folder --root {settings.out}{flags}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    return settings.out


def _gather(settings: Settings, console: Console) -> tuple[Material, Mapping[str, Any] | None]:
    """Everything read and checked, and the record of what described the classes if texts did."""
    check_place(settings.out, settings.images)
    folders = list_class_folders(settings.images)
    if settings.attributes is None:
        described = _describe(settings, list(folders))
        place = settings.texts or settings.images
        sheet = Descriptions(
            place,
            list(described.names),
            None,
            list(described.columns),
            described.embeddings.astype("float64"),
        )
    else:
        described, place = None, settings.attributes
        sheet = read_descriptions(
            place, list(folders), class_column=settings.class_column, split_column=settings.split_column,
            leave_out=settings.leave_out,
        )  # fmt: skip
    names, rows, notes = match_classes(sheet, folders, place, settings.partial, settings.keep_rows)
    if described is None:
        notes.insert(0, f'class names: column "{sheet.class_column}"')
        record = read_record(place, sheet.attributes)
    else:
        notes = [f"classes described by {described.record['model']}", *described.notes, *notes]
        record = described.record
    imageless = {name for name in names if name not in folders}
    if sheet.left_out:
        notes.append(f"columns of words, not used as attributes: {', '.join(sheet.left_out)}")
    splits = None if sheet.splits is None else [sheet.splits[row] for row in rows]
    unseen, note = choose_unseen(
        names, splits, _named(settings.unseen), settings.unseen_share, settings.seed, imageless
    )
    notes.append(note)
    values, more = fill_missing(sheet.values[rows], unseen, settings.missing, names, sheet.attributes)
    notes += more
    if described is None:  # single numbers of an embedding have no meaning
        notes += describe_attributes(values, unseen, names, sheet.attributes)
    with progress_bars(console) as progress:
        task = progress.add_task("reading images", total=None)
        images, faults = list_images(
            [folders.get(name) for name in names], settings.skip_bad_images,
            lambda count: progress.advance(task, count),
        )  # fmt: skip
    empty = [name for name, paths in zip(names, images) if not paths and name not in imageless]
    if empty:
        raise UserError(f"{folders[empty[0]]}: no images in it ({len(empty)} classes have none)")
    return Material(names, images, unseen, sheet.attributes, values, notes + faults), record


def _describe(settings: Settings, names: list[str]) -> Described:
    """Every class of a folder described by its name, unless --texts says more; --texts may have other classes too."""
    assert settings.describe is not None
    given = texts_in_file(settings.texts) if settings.texts else {}
    known = {plain_name(name) for name in given}
    texts = {**texts_of([n for n in names if plain_name(n) not in known]), **given}
    return describe_classes(texts, open_encoder(settings.describe, settings.describe_model))


def _named(unseen: tuple[str, ...]) -> list[str]:
    """Class names as given, or the lines of a file."""
    if len(unseen) == 1 and Path(unseen[0]).is_file():
        try:
            text = Path(unseen[0]).read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(
                f"--unseen {unseen[0]}: not a text in UTF-8; wanted a class name a line"
            ) from None
        return [line.strip() for line in text.splitlines() if line.strip()]
    return list(unseen)


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    make_dataset(parse(Settings, arguments, "python -m fastzsl.make_dataset", DESCRIPTION))


if __name__ == "__main__":
    main()
