"""The result of a run: a table and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.protocol.attention import Localisation
from fastzsl.protocol.metrics import Results, SeenResults
from fastzsl.protocol.probabilities import Probabilities
from fastzsl.report.tables import Table

NO_TEST = (
    "There is no test on unseen classes, because no unseen class has an image. How well new classes are recognised was "
    "measured only while gamma was chosen: on seen classes that were held out of other trainings."
)


def results_table(
    results: Results | SeenResults,
    where: Localisation | None,
    data: ZeroShotDataset,
    held_out: Mapping[str, float] | None = None,
) -> Table:
    """Every figure with its meaning.

    Args:
        held_out: mean figures on held-out seen classes; shown if there is no test on unseen classes.
    """

    gamma = f"gamma = {results.gamma:.4f}"
    caption = (
        f"{data.name}: {len(data.seen)} seen and {len(data.unseen)} unseen classes. Accuracy is the mean over the "
        "classes of the share of a class's test images that is named right."
    )
    if isinstance(results, SeenResults):
        return Table(
            "results", f"{caption} {NO_TEST}", ["figure", "value", "what it is"],
            _seen_rows(results, data, held_out or {}),
        )  # fmt: skip
    if imageless := len(data.unseen) - len(data.labels[data.test_unseen].unique()):
        caption += f" {imageless} unseen classes have no images; they are only among the choices."
    rows = [
        ["T1", _percent(results.T1), "unseen classes, choice among unseen classes (equation 8)"],
        ["U", _percent(results.U), f"unseen classes, choice among all, {gamma} (equation 9)"],
        ["S", _percent(results.S), f"seen classes, choice among all, {gamma}"],
        ["H", _percent(results.H), "harmonic mean of U and S; gamma chosen on held-out seen classes"],
        ["U, no gamma", _percent(results.U0), "the same with gamma = 0"],
        ["S, no gamma", _percent(results.S0), "the same with gamma = 0"],
        ["H, no gamma", _percent(results.H0), "the same with gamma = 0"],
        ["AUSUC", f"{results.AUSUC:.3f}", "area under S over U for every gamma, from 0 to 1"],
        ["chance", _percent(1 / len(data.unseen)), "T1 of guessing"],
    ]
    if where is not None:
        chance = _percent(where.chance)
        rows.append(["attention", _percent(where.hits), f"maxima on the object; {chance} of a random place"])
    return Table("results", caption, ["figure", "value", "what it is"], rows)


def probability_tables(probabilities: Mapping[str, Probabilities]) -> list[Table]:
    """How far probabilities and the threshold of "none of these" can be trusted; empty without probabilities."""
    if not probabilities:
        return []
    caption = (
        "Probabilities are softmax(scores / temperature). All of this was chosen on held-out seen classes. The "
        "calibration error is the mean difference between the best class's probability and the share of right "
        "answers. With predict --reject an image is none of the candidates if its best class is below the threshold."
    )
    choices = {"among_all": "among seen and new classes", "among_unseen": "among new classes alone"}
    rows = [
        [choices[name], f"{own.temperature:.4g}", _percent(own.calibration_error),
         f"{own.reject_by} {own.threshold:.4g}" if own.threshold is not None else "-",
         _percent(own.accepted), _percent(own.rejected)]
        for name, own in probabilities.items() if name in choices
    ]  # fmt: skip
    header = ["choice", "temperature", "calibration error", "threshold", "candidates kept", "others rejected"]
    return [Table("probabilities", caption, header, rows)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _seen_rows(results: SeenResults, data: ZeroShotDataset, held_out: Mapping[str, float]) -> list[list[str]]:
    rows = [["S", f"{100 * results.S:.1f} %", f"seen classes, choice among all {data.num_classes}"]]
    if len(data.unseen):
        rows[0][2] += f", gamma = {results.gamma:.4f} (equation 9)"
        rows.append(["S, no gamma", f"{100 * results.S0:.1f} %", "the same with gamma = 0"])
    rows.append(["chance", f"{100 / data.num_classes:.1f} %", "S of guessing"])
    meaning = {
        "T1": "held-out seen classes, choice among these alone (equation 8)",
        "H": f"harmonic mean of held-out and other seen classes, gamma = {results.gamma:.4f}",
    }
    rows += [[f"{n}, held out", f"{100 * held_out[n]:.1f} %", m] for n, m in meaning.items() if n in held_out]
    return rows


def summarise(results: Results | SeenResults, where: Localisation | None, data: ZeroShotDataset) -> list[str]:
    """The result in sentences for a reader who does not know the field."""
    if isinstance(results, SeenResults):
        return [
            f"The model was trained on images of {len(data.seen)} classes. Of test images of these classes it names "
            f"{100 * results.S:.0f} of 100 right, choosing among {data.num_classes}.",
            NO_TEST,
        ]
    unseen = len(data.unseen)
    sentences = [
        f"The model was trained on images of {len(data.seen)} classes. It was then shown images of {unseen} other "
        f"classes, of which it knew nothing but a description ({data.embedding_dim} numbers each).",
        f"If it chooses among the {unseen} new classes, it names {100 * results.T1:.0f} of 100 such images right; "
        f"guessing gets {100 / unseen:.0f}.",
        f"If it chooses among all {data.num_classes} classes, it names {100 * results.U:.0f} of 100 images of "
        f"new classes right, and {100 * results.S:.0f} of 100 of known ones (harmonic mean {100 * results.H:.0f}).",
    ]
    if where is not None:
        sentences.append(
            f"The region with most attention is on the object in {100 * where.hits:.0f} of 100 images; "
            f"a random region is in {100 * where.chance:.0f}."
        )
    return sentences
