"""`python -m fastzsl.train`: data, features, training, gamma, evaluation, a run folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fastzsl.command.console import open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.run_settings import parse_run_settings
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.fabric import Fabric
from fastzsl.features.backbones import Backbone
from fastzsl.files.lock import locked
from fastzsl.methods.context import Context
from fastzsl.methods.engines.checkpoint import last_step
from fastzsl.methods.method import Model
from fastzsl.protocol.attention import localisation
from fastzsl.protocol.calibration import calibrate
from fastzsl.protocol.choices import first_candidate, save_means, with_choices, with_shots, worded
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import SeenResults, evaluate_run
from fastzsl.protocol.pipeline import scores_on_held_out
from fastzsl.protocol.scoring import test_scores
from fastzsl.report.class_files import write_class_files
from fastzsl.report.environment import environment
from fastzsl.report.results import results_table
from fastzsl.report.run import write_run_report
from fastzsl.report.tables import print_table
from fastzsl.training.finetuning import FinetunedFeatures
from fastzsl.training.fit import fit_model
from fastzsl.training.inputs import check_names, open_backbone, prepare
from fastzsl.training.launch import first_then_others, launch
from fastzsl.training.run import MetricsLog, RunFolder
from fastzsl.training.settings import Settings

DESCRIPTION = """Train and evaluate a zero-shot recogniser.

Without arguments: draw the data set "shapes", extract its features (and cache them), train, choose gamma on held-out
seen classes, print T1, U, S, H and AUSUC, and write everything to runs/shapes.

Your own images: --dataset folder --root DIR, with DIR/images/<class>/* and DIR/classes.csv, whose columns are
class, split (seen or unseen) and one for each attribute.
"""


def train(settings: Settings, console: Console | None = None) -> RunFolder:
    """Run everything: data, features, training, gamma, evaluation. Returns the run folder.

    Raises:
        UserError: anything wrong with the input.
    """
    console = console or open_console()
    fabric = launch(settings)
    console.quiet = console.quiet or not fabric.is_global_zero
    run = RunFolder(settings.run_folder)
    check_names(settings)
    settings = settings.with_absolute_paths().with_engine(fabric.device).with_recipe()
    run.refuse_foreign(settings)
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            run.path.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_if_empty, run.path)
            stack.enter_context(locked(run.path))
        _run(settings, fabric, run, console)
    return run


def _remove_if_empty(folder: Path) -> None:
    """What a run on bad data leaves."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _run(settings: Settings, fabric: Fabric, run: RunFolder, console: Console) -> None:
    with progress_bars(console) as progress:
        # The others find its features in the cache.
        first = first_candidate(settings)
        data, backbone = first_then_others(fabric, lambda: prepare(first, fabric.device, progress))
        if fabric.is_global_zero:
            run.begin(settings, data, _features_of(data, backbone))
        fabric.barrier()  # an old checkpoint must be removed before any process looks for one
        settings, data = with_choices(settings, data, fabric, run, progress)
        if fabric.is_global_zero and isinstance(data.adapt, FinetunedFeatures):
            run.save_backbone(data.adapt.weights(data))
        model = _fit(settings, data, fabric, backbone, run, progress)
        if fabric.is_global_zero:
            run.save_model(model)
        gamma = _gamma(settings, data, fabric, run, progress)
    if fabric.is_global_zero:
        _report(settings, model, data, run, gamma, console)
    fabric.barrier()


def _features_of(data: ZeroShotDataset, backbone: Backbone | None) -> dict[str, int | str]:
    if backbone is not None:
        return {"feature_dim": backbone.feature_dim}
    one = data.read_regions(data.trainval[:1])
    return {"feature_dim": one.shape[2], "feature_dtype": str(one.dtype).removeprefix("torch.")}


def _fit(
    settings: Settings,
    data: ZeroShotDataset,
    fabric: Fabric,
    backbone: Backbone | None,
    run: RunFolder,
    progress: Progress,
) -> Model:
    start = last_step(run.checkpoint)
    task = progress.add_task("training", total=None, completed=start)
    log = MetricsLog(run, settings, start) if fabric.is_global_zero else None
    began, waited = time.perf_counter(), 0.0

    def listener(step: int, total: int, figures: Mapping[str, float]) -> None:
        if log:
            log(step, figures)
        nonlocal waited
        waited += figures.get("data_wait", 0.0)
        share = waited / (time.perf_counter() - began)
        words = "training" + (f", loss {figures['loss']:.3f}" if "loss" in figures else "")
        words += f", {share:.0%} waiting for data" if "data_wait" in figures else ""
        progress.update(task, completed=step, total=total, description=words)

    context = Context(
        fabric,
        seed=settings.run.seed,
        checkpoint=run.checkpoint,
        checkpoint_steps=settings.run.checkpoint_steps,
        identity=settings.decisive(),
        listener=listener,
    )
    try:
        model = fit_model(settings.method, data, context, backbone)
    finally:
        if log:
            log.close()
    progress.update(task, total=max(1, progress.tasks[task].completed))
    progress.update(task, completed=progress.tasks[task].total)
    return model


def _gamma(
    settings: Settings, data: ZeroShotDataset, fabric: Fabric, run: RunFolder, progress: Progress
) -> float:
    """Choose gamma once and save it in gamma.json, so that a resumed run does not train the folds again."""
    if run.gamma.exists():
        return run.load_gamma()
    folds = settings.protocol.gamma_folds if settings.method.calibrated else 0
    task = progress.add_task("choosing gamma", total=folds)

    def new_backbone() -> Backbone | None:
        if not settings.method.trains_backbone:
            return None
        return open_backbone(settings.features)

    draws = ClassDraws(folds, settings.run.seed)
    problems = scores_on_held_out(
        data,
        settings.method,
        Context(fabric, seed=settings.run.seed),
        draws,
        new_backbone,
        lambda: progress.advance(task),
    )
    record = calibrate(problems)
    if fabric.is_global_zero:
        record = with_shots(record, problems, data, draws)
        save_means(data, record, run)
        run.save_json(run.gamma, {**record, "folds": folds})
    return float(record["gamma"])


def _report(
    settings: Settings,
    model: Model,
    data: ZeroShotDataset,
    run: RunFolder,
    gamma: float,
    console: Console,
) -> None:
    """Evaluate, write results.json and the figures, and print the table."""
    scores = test_scores(model, data)
    results = evaluate_run(scores, gamma)
    where = localisation(model, data, data.test_unseen)
    held_out = run.load_held_out()
    protocol = settings.protocol
    chosen = worded(run.load_chosen())
    gamma_on = f"{protocol.gamma_folds} problems of held-out seen classes, training images only"
    chosen_on = {
        "gamma_chosen_on": gamma_on if settings.method.calibrated else "not calibrated, gamma is 0",
        "settings_chosen_on": "the defaults or the command line; nothing here was chosen on test images"
        + (f"; {chosen} on the problems that chose gamma" if chosen else ""),
    }
    if isinstance(results, SeenResults):
        chosen_on["test_on_unseen_classes"] = "none: no unseen class has an image"
    hits = where.hits if where else None
    record = {**results.as_dict(), "attention_on_object": hits, "held_out": held_out, **chosen_on}
    run.save_json(run.results, record)
    write_class_files(run.path, data, scores, gamma)
    write_run_report(run, model, data, settings, scores, results, where, chosen_on, environment())
    print_table(results_table(results, where, data, held_out), console)
    console.print(f"run folder: {run.path}")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    train(parse_run_settings(arguments, "python -m fastzsl.train", DESCRIPTION))


if __name__ == "__main__":
    main()
