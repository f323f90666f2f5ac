"""`python -m fastzsl.predict RUN image...`: recognise images among the run's classes or new ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from fastzsl.command.console import open_console, printable, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.data.formats.folder import read_image
from fastzsl.errors import UserError
from fastzsl.features.engines import Engine
from fastzsl.prediction.classes import OWN, CandidateClasses
from fastzsl.prediction.images import list_images
from fastzsl.prediction.recogniser import Recogniser, load
from fastzsl.prediction.result import Prediction
from fastzsl.prediction.shots import ShotTerm
from fastzsl.prediction.table import PredictionFile, check_output, kept_when_stopped
from fastzsl.report.heatmap import heatmap_overlay
from fastzsl.text.class_texts import texts_of
from fastzsl.training.run import RunFolder

DESCRIPTION = """Recognise images with a trained run, zero-shot.

The classes are the run's own, or new ones that you describe. --classes new.csv has one row for each class, with the
columns class,<attribute>... The attributes are those of the run's classes.csv, in any order and in the same units.
With --beside seen, an image can also be of a class that the run was trained on.
"""


LONGEST = 80
"""Characters of an image's or a class's name in the name of an overlay."""


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
        shots: folder with a folder of a few images for each of some classes without training images; these images
            count beside the descriptions.
        top: number of classes shown for each image.
        heatmap: folder for images overlaid with the attention of each shown class.
        attributes: with --heatmap, attributes of the run to show instead of the classes: where the model looked for
            each, in every image (a run of --method dazle).
        out: file for the predictions, .csv, .jsonl or .parquet, instead of a table; one row for each image and shown
            class. If the command is stopped, run it again to continue.
        reject: say of each image whether it is none of the candidates: its best class is below the threshold that was
            chosen on held-out seen classes.
        json: print one JSON object instead of a table.
        batch_size: images in a step of the backbone.
        accelerator: "auto", "cpu", "cuda" or "mps"; default: as the run was trained.
        backbone: the backbone that made the features, for a run trained on a file of features.
        backbone_weights: file with its weights, or "random".
        engine: what computes the features: "torch", "openvino" (faster on a CPU; needs
            `pip install 'fastzsl[openvino]'`), or "auto", which uses it if it is installed.
    """

    run: Annotated[Path, tyro.conf.Positional]
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    classes: str = "all"
    describe: tuple[str, ...] = ()
    describe_model: str | None = None
    beside: Literal["seen", "all"] | None = None
    missing: Literal["error", "mean", "zero"] = "error"
    shots: Path | None = None
    top: int = 5
    heatmap: Path | None = None
    attributes: tuple[str, ...] = ()
    out: Path | None = None
    reject: bool = False
    json: bool = False
    batch_size: int = 32
    accelerator: str | None = None
    backbone: str | None = None
    backbone_weights: str | None = None
    engine: Engine = "auto"

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
        if self.shots is not None and self.reject:
            raise UserError("--reject has no threshold for --shots; wanted one of them")
        if self.attributes and self.heatmap is None:
            raise UserError(
                f"--attributes {self.attributes[0]} shows where the model looked for it; wanted --heatmap DIR as well"
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
    if settings.out is not None:
        if settings.json:
            raise UserError("--json prints and --out writes a file; wanted one of them")
        check_output(settings.out)
    recogniser = load(
        settings.run,
        accelerator=settings.accelerator,
        backbone=settings.backbone,
        backbone_weights=settings.backbone_weights,
        engine=settings.engine,
    )
    described = (
        recogniser.describe(texts_of(settings.describe), settings.describe_model)
        if settings.describe
        else None
    )
    candidates = recogniser.own.candidates(described or settings.classes, settings.beside, settings.missing)
    term = None
    if settings.shots is not None:
        term = recogniser.shots(candidates, settings.shots)
        candidates = replace(candidates, description=candidates.description + term.description)
    if settings.reject:
        _check_reject(recogniser, candidates)
    if settings.heatmap:
        settings.heatmap.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if settings.out is not None:
        bad, done = _to_file(recogniser, images, candidates, settings, term)
    else:
        entries = list(_entries(recogniser, images, candidates, settings, _stems(images), term))
        bad, done = [entry for entry in entries if "error" in entry], len(entries)
        told = {"run": str(settings.run), "classes": candidates.description, "gamma": candidates.gamma}
        if settings.json:
            print(json.dumps({**told, "images": entries}))
        else:
            _print_table(entries, candidates)
    seconds = time.perf_counter() - started
    for entry in bad:
        print(printable(f"fastzsl: skipped: {entry['error']}"), file=sys.stderr)
    if len(images) > 1 and done:
        print(f"{done - len(bad)} images, {(done - len(bad)) / seconds:.1f} a second", file=sys.stderr)
    if bad:
        raise SystemExit(1 if len(bad) < done else 2)


def _check_reject(recogniser: Recogniser, candidates: CandidateClasses) -> None:
    chosen = recogniser.probabilities_for(candidates)
    if chosen is None or chosen.threshold is None:
        raise UserError(
            "--reject needs the threshold that training chooses on held-out seen classes, and the run has none; train "
            "again with --gamma-folds above 0 and a method that gamma is chosen for"
        )


def _to_file(
    recogniser: Recogniser,
    images: list[Path],
    candidates: CandidateClasses,
    settings: Settings,
    term: ShotTerm | None,
) -> tuple[list[dict], int]:
    """Write --out, from where an earlier command stopped. The entries with errors, and the images of this call."""
    assert settings.out is not None
    decisive = {
        **{name: str(getattr(settings, name)) for name in ("top", "heatmap", "attributes", "reject")},
        "run": _run_digest(settings.run.resolve()),
        "names": candidates.names,
        "description": candidates.description,
        "shots": None if term is None else hashlib.sha256(term.means.numpy().tobytes()).hexdigest(),
        "embeddings": hashlib.sha256(candidates.embeddings.numpy().tobytes()).hexdigest(),
    }
    file = PredictionFile(settings.out, decisive)
    done = file.begin(images)
    bad = []
    with kept_when_stopped(file):
        if done:
            print(f"{file.journal}: {done} of {len(images)} images are done; continuing", file=sys.stderr)
        for entry in _entries(recogniser, images[done:], candidates, settings, _stems(images), term):
            file.add(entry)
            if "error" in entry:
                bad.append(entry)
        file.finish()
    open_console().print(f"{candidates.description}\n{settings.out}: {len(images)} images", soft_wrap=True)
    return bad, len(images) - done


def _run_digest(run: Path) -> str:
    """Digest of the run's weights and gamma."""
    folder = RunFolder(run)
    return hashlib.sha256(folder.model.read_bytes() + folder.gamma.read_bytes()).hexdigest()


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
    recogniser: Recogniser,
    images: list[Path],
    candidates: CandidateClasses,
    settings: Settings,
    stems: Counter[str],
    term: ShotTerm | None,
) -> Iterator[dict]:
    """One JSON-like entry for each image. Also writes the overlays."""
    kinds = dict(zip(candidates.names, candidates.kinds))
    bars = progress_bars(open_console(stderr=True))
    bars.disable = len(images) == 1
    with bars as progress:
        task = progress.add_task("recognising", total=len(images))
        found = recogniser.stream(
            images, candidates,
            batch_size=settings.batch_size, attributes=settings.attributes, term=term,
            attention_top=settings.top if settings.heatmap and not settings.attributes else 0,
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
            if prediction.probabilities is not None:
                best = prediction.scores.topk(len(rows)).indices
                for row, value in zip(rows, prediction.probabilities[best].tolist()):
                    row["probability"] = value
            shown: dict = {}
            if settings.heatmap:
                names = settings.attributes or [row["class"] for row in rows]
                overlays = _write_overlays(
                    prediction, settings.heatmap, names, bool(settings.attributes), stems
                )
                if settings.attributes:
                    shown["attributes"] = {name: str(path) for name, path in zip(names, overlays)}
                else:
                    for row, path in zip(rows, overlays):
                        row["heatmap"] = str(path)
            rejected = {"none_of_these": prediction.none_of_these} if settings.reject else {}
            yield {"image": prediction.image, **rejected, "predictions": rows, **shown}


def _stems(images: list[Path]) -> Counter[str]:
    """How many images would give their overlays the same names; case is ignored, as some systems do."""
    return Counter(path.stem[:LONGEST].lower() for path in images)


def _write_overlays(
    prediction: Prediction, folder: Path, names: Sequence[str], attributes: bool, stems: Counter[str]
) -> list[Path]:
    """`<image>-<rank>-<class>.png`, or `<image>-<place>-<attribute>.png` with the place among --attributes.

    The name of an image that is not the only one of this name gets a digest.

    A name depends on the image's path alone, so a command that continues writes no name twice.
    """
    image = read_image(Path(prediction.image))
    stem = Path(prediction.image).stem[:LONGEST]
    if stems[stem.lower()] > 1:
        stem += "-" + hashlib.sha256(os.fsencode(prediction.image)).hexdigest()[:8]
    paths = []
    for rank, name in enumerate(names):
        plain = re.sub(r"[^\w.-]+", "_", name)[:LONGEST]
        paths.append(folder / f"{stem}-{rank + 1}-{plain}.png")
        size = (image.height, image.width)
        heat = prediction.attribute_heatmap(name, *size) if attributes else prediction.heatmap(rank, *size)
        heatmap_overlay(image, heat).save(paths[-1])
    return paths


def _print_table(entries: list[dict], candidates: CandidateClasses) -> None:
    table = Table(title=candidates.description, title_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    with_probability = any("probability" in row for e in entries for row in e.get("predictions", ()))
    if with_probability:
        table.add_column("probability", justify="right")
    for entry in entries:
        if "error" in entry:
            continue
        for rank, row in enumerate(entry["predictions"]):
            last = rank == len(entry["predictions"]) - 1
            table.add_row(
                printable(entry["image"]) if rank == 0 else "",
                (
                    f"none of these ({printable(row['class'])})"
                    if rank == 0 and entry.get("none_of_these")
                    else printable(row["class"])
                ),
                f"{row['score']:.4f}",
                *([f"{row['probability']:.3f}"] if with_probability else []),
                end_section=last,
            )
    if table.rows:
        open_console().print(table)


if __name__ == "__main__":
    main()
