"""The report of an experiment: tables, figures and galleries in one HTML file, and the figures as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.experiments.entries import FULL, Entry
from fastzsl.experiments.experiment import Experiment, TrainingResult
from fastzsl.experiments.statistics import mean_and_sd
from fastzsl.experiments.tables import Table, parts_of_the_model, title
from fastzsl.files.tensors import load_tensors
from fastzsl.methods.method import Model, new_model
from fastzsl.protocol.trials import TrialTable
from fastzsl.report import plots
from fastzsl.report.gallery import Exhibit, gallery, save_gallery
from fastzsl.report.html import Chart, Section, chart, write_report

SweepRows = Mapping[str, Sequence[tuple[float, float, float]]]


def write_experiment_report(
    out: Path,
    experiment: Experiment,
    tables: Sequence[Table],
    trials: TrialTable,
    datasets: Mapping[str, ZeroShotDataset],
    *,
    curve: Experiment | None,
    sweeps: Mapping[str, SweepRows],
    configuration: dict[str, Any],
    environment: dict[str, dict[str, str]],
) -> Path:
    """Write report.html and the figures of an experiment.

    Args:
        out: folder for both.
        experiment: the measured figures.
        tables: shown first.
        trials: where the models are saved.
        datasets: name in the tables -> the data set of its first repetition.
        curve: `shapes` with other numbers of distractors, the number in place of the data set's name.
        sweeps: data set -> H against alpha and eta.
        configuration, environment: shown at the end.

    Returns:
        The path of the report.
    """
    sections = [Section("Tables", tables=list(tables))]
    for dataset in experiment.datasets:
        sections += _dataset_sections(
            out, experiment, dataset, datasets[dataset], trials, sweeps.get(dataset)
        )
    if curve:
        sections.append(Section("Objects that distract", charts=_distractors(out, curve)))
    path = out / "report.html"
    write_report(
        path, "The paper's experiments, repeated", _summary(experiment), sections, configuration, environment
    )
    return path


def _summary(experiment: Experiment) -> list[str]:
    sentences = [
        "A model is trained on images of some classes and then names images of other classes, of "
        "which it knows "
        "only a description. Parts of the model were taken away one at a time to see what each is worth. "
        "Rows marked "
        "as published are typed from the paper; all others were measured by this program."
    ]
    for dataset in experiment.datasets:
        mean, sd = mean_and_sd(experiment.figures(dataset, FULL.name, "T1"))
        H = mean_and_sd(experiment.figures(dataset, FULL.name, "H"))[0]
        count = len(experiment.of(dataset, FULL.name))
        spread = f" (standard deviation {100 * sd:.1f})" if count > 1 else ""
        sentences.append(
            f"{title(dataset)}: the full model names {100 * mean:.1f} of 100 images of new classes "
            f"right{spread}, and "
            f"reaches H = {100 * H:.1f} when known and new classes are mixed; "
            f"{count} repetition{'s' if count != 1 else ''}."
        )
    return sentences


def _dataset_sections(
    out: Path,
    experiment: Experiment,
    dataset: str,
    data: ZeroShotDataset,
    trials: TrialTable,
    swept: SweepRows | None,
) -> list[Section]:
    first = experiment.of(dataset, FULL.name)[0]
    scores, gamma = first.trial_result.scores, first.results.gamma
    seed = f"Repetition {first.training.seed}."
    shown: list[tuple[str, str, str, Figure | None]] = [
        ("ablations", "What each part is worth", "Bars: means; lines: deviations; dots: repetitions.",
         plots.bars(title(dataset), _figures(experiment, dataset, _labels(parts_of_the_model(experiment))))),
        ("methods", "All methods", "The same features, splits and search for all. Lines: deviations.",
         plots.ranking(title(dataset), _figures(experiment, dataset, _labels(experiment.entries)))),
        ("coupling", "Coupled against decoupled mapping (the paper's figure 2b)", "",
         plots.bars(title(dataset), _figures(experiment, dataset, {FULL.name: "coupled", "decoupled": "decoupled"}))),
        ("gamma", "Accuracy over gamma", f"{seed} Dashed: the gamma chosen on held-out seen classes.",
         plots.gamma_curve(scores, gamma)),
        ("seen-unseen", "Accuracy on seen over accuracy on unseen classes", seed,
         plots.seen_unseen_figure(scores, gamma)),
        ("confusion", "Which unseen class is taken for which", seed, plots.confusion(data, scores)),
        ("classes", "Accuracy of every class", f"{seed} Choice among all classes, with gamma.",
         plots.class_accuracy(data, scores, gamma)),
    ]  # fmt: skip
    if swept:
        in_use = {name: getattr(first.training.settings.method, name) for name in swept}
        shown.insert(
            2,
            ("alpha-eta", "H against alpha and eta", "On held-out seen classes, never on test images.",
             plots.sweep(swept, in_use)),
        )  # fmt: skip
    charts = []
    for name, heading, text, plot in shown:
        charts += _keep(out / f"{dataset}-{name}.png", heading, text, plot)
    sections = [Section(title(dataset), charts=charts)]
    with_and_without = {
        FULL.name: "with manifold alignment",
        "no-ma": "without manifold alignment (alpha = 0)",
    }
    for variant, heading in with_and_without.items():
        own = experiment.of(dataset, variant)
        exhibits = _exhibits(own[0], data, trials) if own else []
        if exhibits:
            save_gallery(exhibits, out / f"{dataset}-attention-{variant}.png", f"{title(dataset)}, {heading}")
            text = (
                "The paper's figure 2a: images of unseen classes, the attention of their own class "
                "(green) and of "
                "three other unseen classes, scaled up bilinearly. White outline: the object, where it is "
                "known. The images are the best, the middle and the worst by the rank of their own class."
            )
            sections.append(Section(f"Attention, {heading}", text, exhibits=exhibits))
    return sections


def _labels(entries: Sequence[Entry]) -> dict[str, str]:
    return {entry.name: entry.label for entry in entries}


def _figures(
    experiment: Experiment, dataset: str, entries: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Label -> setting -> accuracy of every repetition, for entries (name -> label) that were run."""
    settings = {"T1": "conventional, T1", "H": "generalised, H"}
    return {
        label: {shown: experiment.figures(dataset, name, figure) for figure, shown in settings.items()}
        for name, label in entries.items()
        if experiment.of(dataset, name)
    }


def _keep(path: Path, heading: str, text: str, plot: Figure | None) -> list[Chart]:
    if plot is not None:
        plot.savefig(path, dpi=130)
    return chart(heading, text, plot)


def _exhibits(measured: TrainingResult, data: ZeroShotDataset, trials: TrialTable) -> list[Exhibit]:
    weights = trials.path(measured.training.trial) / "model.safetensors"
    if not weights.exists():
        return []
    return gallery(_load_model(measured, data, weights), data, measured.trial_result.scores, count=6)


def _load_model(measured: TrainingResult, data: ZeroShotDataset, weights: Path) -> Model:
    assert data.regions is not None
    trial = measured.training.trial
    model = new_model(trial.method, data.regions.feature_shape[0], data.embedding_dim, trial.seed)
    model.load_state_dict(load_tensors(weights))
    return model.eval()


def _distractors(out: Path, curve: Experiment) -> list[Chart]:
    points = {
        ("attention" if v.name == FULL.name else v.label.lower()): {
            int(count): curve.figures(count, v.name, "T1") for count in curve.datasets
        }
        for v in curve.entries
    }
    text = (
        "Each image shows one object of its class and this many objects of no class. Attention has to "
        "find the one "
        "that is described; the mean over the image cannot."
    )
    return _keep(
        out / "distractors.png", "T1 over the number of distractors", text, plots.distractor_curve(points)
    )
