"""`python -m fastzsl.predict RUN image...`: recognise images among the run's classes or new ones."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from fastzsl.command.console import open_console, printable, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.data.formats.folder import read_image
from fastzsl.errors import UserError
from fastzsl.prediction.classes import OWN, CandidateClasses
from fastzsl.prediction.recogniser import Prediction, Recogniser, list_images, load
from fastzsl.report.heatmap import heatmap_overlay
from fastzsl.text.class_texts import texts_of

DESCRIPTION = """Recognise images with a trained run, zero-shot.

The classes are the run's own, or new ones that you describe. --classes new.csv has one row for each class, with the
columns class,<attribute>... The attributes are those of the run's classes.csv, in any order and in the same units.
With --beside seen, an image can also be of a class that the run was trained on.
"""


@dataclass(frozen=True)
class Settings:
    """What to recognise.

    Args:
        run: the run folder.
        images: image files, or folders with images below.
        classes: "all" of the run's classes, its "unseen" or "seen" ones, or a file of new ones (.csv, .npz or .mat).
        describe: new classes as NAME=TEXT, or NAME alone, for a run whose classes are described by texts
            (python -m fastzsl.describe). The run's own model is used.
        describe_model: where this model is now, if it was moved.
        beside: with new classes: "seen" or "all", the run's own classes that are candidates too. Gamma is then added
            to the scores of every class that the run was not trained on.
        missing: what to do with attributes that --classes does not give: stop, or take the seen classes' mean, or 0.
        top: number of classes shown for each image.
        heatmap: folder for images overlaid with the attention of each shown class.
        json: print one JSON object instead of a table.
        batch_size: images in a step of the backbone.
        accelerator: "auto", "cpu", "cuda" or "mps"; default: as the run was trained.
        backbone: the backbone that made the features, for a run trained on a file of features.
        backbone_weights: file with its weights, or "random".
    """

    run: Annotated[Path, tyro.conf.Positional]
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    classes: str = "all"
    describe: tuple[str, ...] = ()
    describe_model: str | None = None
    beside: Literal["seen", "all"] | None = None
    missing: Literal["error", "mean", "zero"] = "error"
    top: int = 5
    heatmap: Path | None = None
    json: bool = False
    batch_size: int = 32
    accelerator: str | None = None
    backbone: str | None = None
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        if self.describe and self.classes != "all":
            raise UserError(
                f"--describe and --classes {self.classes} both say which classes; wanted one of them"
            )
        if self.beside is not None and self.classes in OWN and not self.describe:
            raise UserError(
                f"--beside {self.beside} needs new classes; wanted --classes FILE, a table class,<attribute>..., "
                "or --describe NAME=TEXT"
            )
        for name in ("top", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; wanted 1 or more")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    """Exit code 0; 1 if some images could not be read (each is named on stderr), 2 if none could."""
    settings = parse(Settings, arguments, "python -m fastzsl.predict", DESCRIPTION)
    images = _files(settings.images)
    if settings.heatmap and settings.heatmap.exists() and not settings.heatmap.is_dir():
        raise UserError(f"--heatmap {settings.heatmap} is a file; wanted a folder")
    recogniser = load(
        settings.run,
        accelerator=settings.accelerator,
        backbone=settings.backbone,
        backbone_weights=settings.backbone_weights,
    )
    described = (
        recogniser.describe(texts_of(settings.describe), settings.describe_model)
        if settings.describe
        else None
    )
    candidates = recogniser.own.candidates(described or settings.classes, settings.beside, settings.missing)
    if settings.heatmap:
        settings.heatmap.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    entries = list(_entries(recogniser, images, candidates, settings))
    seconds = time.perf_counter() - started
    bad = [entry for entry in entries if "error" in entry]
    if settings.json:
        told = {"run": str(settings.run), "classes": candidates.description, "gamma": candidates.gamma}
        print(json.dumps({**told, "images": entries}))
    else:
        _print_table(entries, candidates)
    for entry in bad:
        print(printable(f"fastzsl: skipped: {entry['error']}"), file=sys.stderr)
    if len(images) > 1:
        rate = (len(images) - len(bad)) / seconds
        print(f"{len(images) - len(bad)} images, {rate:.1f} a second", file=sys.stderr)
    if bad:
        raise SystemExit(1 if len(bad) < len(images) else 2)


def _files(named: tuple[Path, ...]) -> list[Path]:
    """Files as named, folders as the images below them."""
    if not named:
        raise UserError("no image given; wanted image files or folders after the run")
    files = []
    for path in named:
        below = list_images(path) if path.is_dir() else [path]
        if not below:
            raise UserError(f"{path}: no images below this folder")
        files += below
    return files


def _entries(
    recogniser: Recogniser, images: list[Path], candidates: CandidateClasses, settings: Settings
) -> Iterator[dict]:
    """One JSON-like entry for each image. Also writes the overlays."""
    taken: set[str] = set()
    kinds = dict(zip(candidates.names, candidates.kinds))
    bars = progress_bars(open_console(stderr=True))
    bars.disable = len(images) == 1
    with bars as progress:
        task = progress.add_task("recognising", total=len(images))
        found = recogniser.stream(
            images, candidates,
            batch_size=settings.batch_size, attention_top=settings.top if settings.heatmap else 0,
        )  # fmt: skip
        for prediction in found:
            progress.advance(task)
            if prediction.error is not None:
                yield {"image": prediction.image, "error": prediction.error}
                continue
            rows: list[dict] = [
                {"class": name, "score": score, "kind": kinds[name]}
                for name, score in prediction.top(settings.top)
            ]
            if settings.heatmap:
                overlays = _write_overlays(prediction, settings.heatmap, len(rows), taken)
                for row, path in zip(rows, overlays):
                    row["heatmap"] = str(path)
            yield {"image": prediction.image, "predictions": rows}


def _write_overlays(prediction: Prediction, folder: Path, count: int, taken: set[str]) -> list[Path]:
    image = read_image(Path(prediction.image))
    stem = unique = Path(prediction.image).stem
    number = 1
    while unique in taken:
        number += 1
        unique = f"{stem}-{number}"
    taken.add(unique)
    paths = []
    for rank, (name, _) in enumerate(prediction.top(count)):
        plain = re.sub(r"[^\w.-]+", "_", name)
        paths.append(folder / f"{unique}-{rank + 1}-{plain}.png")
        heat = prediction.heatmap(rank, image.height, image.width)
        heatmap_overlay(image, heat).save(paths[-1])
    return paths


def _print_table(entries: list[dict], candidates: CandidateClasses) -> None:
    table = Table(title=candidates.description, title_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    for entry in entries:
        if "error" in entry:
            continue
        for rank, row in enumerate(entry["predictions"]):
            last = rank == len(entry["predictions"]) - 1
            table.add_row(
                printable(entry["image"]) if rank == 0 else "",
                printable(row["class"]),
                f"{row['score']:.4f}",
                end_section=last,
            )
    if table.rows:
        open_console().print(table)


if __name__ == "__main__":
    main()
