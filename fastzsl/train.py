"""`python -m fastzsl.train`: data, features, training, gamma, evaluation, a run folder."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse, progress_bars
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.info import gather
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.protocol.calibration import choose_gamma
from fastzsl.protocol.metrics import TestScores, evaluate
from fastzsl.protocol.scoring import localisation, test_scores
from fastzsl.protocol.selection import choose_epochs
from fastzsl.protocol.trials import TrialTable, run_trials
from fastzsl.report.figures import accuracy_figure, attention_figure
from fastzsl.report.html import write_run_report
from fastzsl.report.results import print_results
from fastzsl.training.config import Config, load_config
from fastzsl.training.inputs import check_names, feature_dim, prepare
from fastzsl.training.launch import first_then_others, launch
from fastzsl.training.loop import build_model, fit
from fastzsl.training.run import MetricsLog, RunFolder, last_step

DESCRIPTION = """Train and evaluate a zero-shot recogniser.

With no argument: draw the data set "shapes", extract its features (kept for the next time), train, choose gamma on
held-out seen classes, print T1, U, S, H and AUSUC, and leave everything in runs/shapes.

Your own pictures: --dataset folder --root DIR, with DIR/images/<class>/* and DIR/classes.csv, whose columns are
class, split (seen or unseen) and one for each attribute.
"""


def train(config: Config, console: Console | None = None) -> RunFolder:
    """Run the whole: data, features, training, gamma, evaluation. Returns the run folder.

    Raises:
        UserError: anything in the input that the user can mend.
    """
    console = console or Console()
    fabric = launch(config)
    console.quiet = not fabric.is_global_zero
    run = RunFolder(config.run_folder)
    check_names(config)
    run.refuse_foreign(config)
    with progress_bars(console) as progress:
        # The others find its features in the cache.
        data, backbone = first_then_others(fabric, lambda: prepare(config, fabric.device, progress))
        if fabric.is_global_zero:
            run.begin(config)
            run.save_classes(data)
        fabric.barrier()  # nobody looks for a checkpoint before an old one is gone
        config = _with_chosen_epochs(config, fabric, run, progress)
        model = build_model(data, config, feature_dim(data, backbone), backbone)
        _fit(model, data, config, fabric, run, progress)
        if fabric.is_global_zero:
            run.save_model(model)
        gamma = _gamma(data, config, fabric, backbone, run, progress)
    if fabric.is_global_zero:
        _report(model, data, config, run, gamma, console)
    fabric.barrier()
    return run


def _with_chosen_epochs(config: Config, fabric: Fabric, run: RunFolder, progress: Progress) -> Config:
    """The epochs that suit held-out seen classes best; gamma comes with them and is kept in gamma.json."""
    if not config.choose_epochs:
        return config
    if fabric.world_size > 1:
        raise UserError("--choose-epochs takes one device; choose there, then give --epochs to the others")
    if not run.gamma.exists():
        table = TrialTable(run.trials)
        search = functools.partial(run_trials, table=table, progress=progress, label="choosing epochs")
        found = choose_epochs(config, table, search)
        tried = [{**c.changes, "T1": c.T1, "H": c.H, "AUSUC": c.AUSUC} for c in found.candidates]
        kept = {"gamma": found.gamma, "folds": config.gamma_folds, "epochs": found.config.epochs}
        run.save_json(run.gamma, {**kept, "chosen_on": found.chosen_on, "tried": tried})
    epochs = int(run.load_json(run.gamma)["epochs"])
    progress.console.print(f"epochs: {epochs}, chosen on held-out seen classes", highlight=False)
    return replace(config, epochs=epochs)


def _fit(
    model: AttendedAutoencoder,
    data: ZeroShotDataset,
    config: Config,
    fabric: Fabric,
    run: RunFolder,
    progress: Progress,
) -> None:
    start = last_step(run.checkpoint)
    total = config.epochs * -(-len(data.trainval) // config.batch_size)
    task = progress.add_task("training", total=total, completed=start)
    log = MetricsLog(run, start) if fabric.is_global_zero else None

    began, waited = time.perf_counter(), 0.0

    def listener(step: int, figures: dict[str, float]) -> None:
        if log:
            log(step, figures)
        nonlocal waited
        waited += figures["data_wait"]
        share = waited / (time.perf_counter() - began)
        words = f"training, loss {figures['loss']:.3f}, {share:.0%} waiting for data"
        progress.update(task, completed=step, description=words)

    try:
        fit(model, data, config, fabric, checkpoint=run.checkpoint, listener=listener)
    finally:
        if log:
            log.close()


def _gamma(
    data: ZeroShotDataset,
    config: Config,
    fabric: Fabric,
    backbone: Backbone | None,
    run: RunFolder,
    progress: Progress,
) -> float:
    """Chosen once and kept in gamma.json, so that a resumed run does not train the folds again."""
    if run.gamma.exists():
        return run.load_gamma()
    task = progress.add_task("choosing gamma", total=config.gamma_folds)

    def train_and_score(problem: ZeroShotDataset) -> TestScores:
        fold_backbone = load_backbone(config.backbone, config.backbone_weights) if backbone else None
        model = build_model(problem, config, feature_dim(problem, backbone), fold_backbone)
        scores = test_scores(fit(model, problem, config, fabric), problem)
        progress.advance(task)
        return scores

    gamma = choose_gamma(data, train_and_score, config.gamma_folds, config.seed)
    if fabric.is_global_zero:
        run.save_json(run.gamma, {"gamma": gamma, "folds": config.gamma_folds})
    return gamma


def _report(
    model: AttendedAutoencoder,
    data: ZeroShotDataset,
    config: Config,
    run: RunFolder,
    gamma: float,
    console: Console,
) -> None:
    """Evaluate, leave results.json and the figures, print the table."""
    scores = test_scores(model, data)
    results = evaluate(scores, gamma)
    where = localisation(model, data, data.test_unseen)
    chosen = "; the epochs on the problems that chose gamma" if config.choose_epochs else ""
    chosen_on = {
        "gamma_chosen_on": f"{config.gamma_folds} problems of held-out seen classes, training pictures only",
        "settings_chosen_on": "the defaults or the command line; nothing here was chosen on test pictures"
        + chosen,
    }
    hits = where.hits if where else None
    run.save_json(run.results, {**results.as_dict(), "attention_on_object": hits, **chosen_on})
    accuracy_figure(data, scores, gamma, run.accuracy_figure)
    if model.pooling == "attention":
        attention_figure(model, data, scores, run.attention_figure)
    write_run_report(run, model, data, config, scores, results, where, chosen_on, gather())
    print_results(results, where, data, console)
    console.print(f"run folder: {run.path}", highlight=False)


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    train(parse(Config, arguments, "python -m fastzsl.train", DESCRIPTION, load_config))


if __name__ == "__main__":
    main()
