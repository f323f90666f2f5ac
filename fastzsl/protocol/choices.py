"""What `train` chooses on held-out seen classes before the training, and what gamma.json keeps of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.fabric import Fabric
from fastzsl.files.tensors import save_tensors
from fastzsl.protocol.calibration import calibrate
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import TestScores
from fastzsl.protocol.selection import Selection, choose_training, training_options
from fastzsl.protocol.shots import choose_shot_weights, class_means
from fastzsl.protocol.trials import Trial, TrialTable
from fastzsl.protocol.workers import run_trials
from fastzsl.training.inputs import prepare
from fastzsl.training.run import RunFolder
from fastzsl.training.settings import Settings


def with_choices(
    settings: Settings, data: ZeroShotDataset, fabric: Fabric, run: RunFolder, progress: Progress
) -> tuple[Settings, ZeroShotDataset]:
    """The settings with the size of the images, the epochs or the recipe that are best on held-out seen classes, and
    the data set with features of that size. They are saved with their gamma in gamma.json.

    Args:
        data: with the features of `first_candidate(settings)`.

    Raises:
        UserError: several devices, or no problems to choose on.
    """
    protocol = settings.protocol
    if not protocol.choose_image_size and not training_options(settings):
        return settings, data
    if fabric.world_size > 1:
        for flag in ("choose_image_size", "choose_epochs"):
            if getattr(protocol, flag):
                words, one = (
                    "--" + flag.replace("_", "-"),
                    "--" + flag.removeprefix("choose_").replace("_", "-"),
                )
                raise UserError(f"{words} takes one device; choose there, then give {one} to the others")
        progress.console.print("several devices: no recipes are compared (--recipe NAME takes one)")
        return settings, data
    if not run.gamma.exists():
        _choose(settings, data, fabric, run, progress)
    found = run.with_chosen(settings)
    tried = len(run.load_json(run.gamma).get("tried", ()))
    progress.console.print(
        f"{worded(run.load_chosen())}: chosen on held-out seen classes among {tried} settings"
    )
    if found.features.image_size != first_candidate(settings).features.image_size:
        data = prepare(found, fabric.device, progress)[0]
    return found, data


def first_candidate(settings: Settings) -> Settings:
    """The settings with the first of the sizes of the images that are compared."""
    return next(iter(_candidates(settings)))


def _candidates(settings: Settings) -> list[Settings]:
    sizes = settings.protocol.choose_image_size
    return [settings.changed(image_size=size, choose_image_size=()) for size in sizes] or [settings]


@dataclass(frozen=True)
class _Compared:
    """The trainings of one size of the images."""

    settings: Settings
    selection: Selection
    record: Mapping[str, Any]


def _choose(
    settings: Settings, data: ZeroShotDataset, fabric: Fabric, run: RunFolder, progress: Progress
) -> None:
    """Compare all candidates and write gamma.json."""
    compared: list[_Compared] = []
    best: _Compared | None = None
    sizes = settings.protocol.choose_image_size
    for i, own in enumerate(_candidates(settings)):
        if i:
            data = prepare(own, fabric.device, progress)[0]
        compared.append(_compare(own, data, run, progress))
        point = compared[-1].selection.best
        if sizes:
            figures = f"T1 {point.T1:.3f}, H {point.H:.3f}, AUSUC {point.AUSUC:.3f}"
            progress.console.print(f"images of {sizes[i]} pixels: {figures} on held-out seen classes")
        if best is None or point.AUSUC > best.selection.best.AUSUC:
            best = compared[-1]
            save_means(data, best.record, run)
    assert best is not None
    size = {"image_size": best.settings.features.image_size} if sizes else {}
    tried = [
        ({"image_size": c.settings.features.image_size} if sizes else {})
        | {**p.changes, "T1": p.T1, "H": p.H, "AUSUC": p.AUSUC, "problems": p.problems}
        for c in compared
        for p in c.selection.points
    ]
    chosen_on = best.selection.chosen_on
    if sizes:
        chosen_on += f", with each of {len(sizes)} image sizes"
    kept = {
        **best.record,
        "folds": settings.protocol.gamma_folds,
        "chosen": size | best.selection.best.changes,
    }
    run.save_json(run.gamma, {**kept, "chosen_on": chosen_on, "tried": tried})


def _compare(settings: Settings, data: ZeroShotDataset, run: RunFolder, progress: Progress) -> _Compared:
    table = TrialTable(run.trials)
    search = functools.partial(
        run_trials, table=table, data=data, progress=progress, label="comparing trainings"
    )
    found = choose_training(settings, data, training_options(settings) or [{}], table, search)
    folds = ClassDraws(settings.protocol.gamma_folds, settings.run.seed)
    scores = [table[Trial.of(found.settings, data, p)].scores for p in folds.problems()]
    return _Compared(settings, found, with_shots(calibrate(scores, found.gamma), scores, data, folds))


def with_shots(
    record: dict[str, Any], scores: Sequence[TestScores], data: ZeroShotDataset, draws: ClassDraws
) -> dict[str, Any]:
    """The record of gamma.json with how much a few images of a new class count.

    A trained backbone gives other features on each problem, so then nothing is chosen.
    """
    if data.regions is None or not scores:
        return record
    guarded = SeenClassesOnly(data)
    problems = [guarded.problem(held_out) for held_out in draws.problems()]
    weights = choose_shot_weights(problems, scores, float(record["gamma"]), draws.seed)
    return record if weights is None else {**record, "shots": weights.as_dict()}


def save_means(data: ZeroShotDataset, record: Mapping[str, Any], run: RunFolder) -> None:
    """The classes' means, which a few images of a new class are compared with."""
    if "shots" in record:
        save_tensors(run.class_means, vars(class_means(data)))


def worded(values: Mapping[str, Any]) -> str:
    """Settings and their values in a line."""
    return ", ".join(f"{name} {v}" if isinstance(v, str) else f"{name} {v:g}" for name, v in values.items())
