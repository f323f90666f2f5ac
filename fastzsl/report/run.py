"""The report of a run: report.html, attention.png, accuracy.png."""

from __future__ import annotations

from pathlib import Path

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods.method import Model
from fastzsl.protocol.attention import Localisation
from fastzsl.protocol.metrics import Results, SeenResults, TestScores
from fastzsl.protocol.probabilities import Probabilities, read_probabilities
from fastzsl.report import plots
from fastzsl.report.gallery import gallery, save_gallery
from fastzsl.report.html import Section, chart, write_report
from fastzsl.report.results import probability_tables, results_table, summarise
from fastzsl.training.run import RunFolder
from fastzsl.training.settings import Settings


def write_run_report(
    run: RunFolder,
    model: Model,
    data: ZeroShotDataset,
    settings: Settings,
    scores: TestScores,
    results: Results | SeenResults,
    where: Localisation | None,
    chosen_on: dict[str, str],
    environment: dict[str, dict[str, str]],
) -> Path:
    """report.html of one run.

    Args:
        run: the run folder, with metrics.jsonl.
        model, data, settings: of the run.
        scores, results: of its test images.
        where: the attention compared with the objects' masks, if they are known.
        chosen_on: a sentence that names what was chosen, and on which data.
        environment: `fastzsl.report.environment.environment()`.

    Returns:
        The path of the report.
    """
    held_out: dict[str, float] = {}
    probabilities: dict[str, Probabilities] = {}
    if run.gamma.exists():
        held_out = run.load_held_out()
        saved = run.load_json(run.gamma).get("probabilities")
        probabilities = read_probabilities(saved, str(run.gamma))
    tested = isinstance(results, Results)
    kind, never = ("unseen", "never saw in training") if tested else ("seen", "was trained on")
    exhibits = gallery(model, data, scores)
    shown = any(tile.kind == "attribute" for exhibit in exhibits for tile in exhibit.tiles)
    if exhibits:
        save_gallery(exhibits, run.attention_figure, f"{data.name}: images of {kind} classes")
    accuracy = plots.class_accuracy(data, scores, results.gamma)
    accuracy.savefig(run.accuracy_figure, dpi=110)
    sections = [
        Section(
            "Results",
            tables=[results_table(results, where, data, held_out), *probability_tables(probabilities)],
        ),
        Section(
            "Where the attention looks",
            f"Images of classes that the model {never}. Bright is where the attention of a class looks: "
            f"of the image's own class (green) and of the three other {kind} classes with the highest scores. "
            "A white outline is the object, where it is known. The images are the best, the middle and the worst of "
            "the test, ordered by the rank of their own class, so that failures are shown like successes."
            + (
                " Below: where the model looks for the most telling attributes of the class." if shown else ""
            ),
            exhibits=exhibits,
        ),
        Section(
            "Curves",
            charts=[
                *chart(
                    "Balance of seen and unseen classes",
                    "gamma is added to the scores of unseen classes, because a model prefers what it was "
                    "trained on. "
                    "It was chosen without any test image; the curves show what every other choice "
                    "would have given.",
                    plots.gamma_curve(scores, results.gamma) if tested else None,
                ),
                *chart(
                    "Accuracy on seen classes over accuracy on unseen ones",
                    "Every gamma is a point of the curve. The area under it judges the model without any "
                    "choice of gamma.",
                    plots.seen_unseen_figure(scores, results.gamma) if tested else None,
                ),
                *chart("Training", "The terms of the loss, smoothed.", plots.loss_curves(run.metrics)),
            ],
        ),
        Section(
            "Class by class",
            charts=[
                *chart(
                    "Which unseen class is taken for which",
                    "Each row is an unseen class; the diagonal is right. Choice among unseen classes only.",
                    plots.confusion(data, scores) if tested else None,
                ),
                *chart(
                    "Accuracy of every class",
                    "Choice among all classes, with gamma.",
                    accuracy,
                ),
            ],
        ),
    ]
    path = run.path / "report.html"
    write_report(
        path,
        f"{data.name}: zero-shot recognition",
        summarise(results, where, data),
        sections,
        {**settings.decisive(), **chosen_on},
        environment,
    )
    return path
