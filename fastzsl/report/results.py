"""The result of a run: a table and sentences."""

from __future__ import annotations

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.protocol.attention import Localisation
from fastzsl.protocol.metrics import Results
from fastzsl.report.tables import Table


def results_table(results: Results, where: Localisation | None, data: ZeroShotDataset) -> Table:
    """Every figure with its meaning."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    gamma = f"gamma = {results.gamma:.4f}"
    rows = [
        ["T1", percent(results.T1), "unseen classes, choice among unseen classes (equation 8)"],
        ["U", percent(results.U), f"unseen classes, choice among all, {gamma} (equation 9)"],
        ["S", percent(results.S), f"seen classes, choice among all, {gamma}"],
        ["H", percent(results.H), "harmonic mean of U and S; gamma chosen on held-out seen classes"],
        ["U, no gamma", percent(results.U0), "the same with gamma = 0"],
        ["S, no gamma", percent(results.S0), "the same with gamma = 0"],
        ["H, no gamma", percent(results.H0), "the same with gamma = 0"],
        ["AUSUC", f"{results.AUSUC:.3f}", "area under S over U for every gamma, from 0 to 1"],
        ["chance", percent(1 / len(data.unseen)), "T1 of guessing"],
    ]
    if where is not None:
        chance = percent(where.chance)
        rows.append(["attention", percent(where.hits), f"maxima on the object; {chance} of a random place"])
    caption = (
        f"{data.name}: {len(data.seen)} seen and {len(data.unseen)} unseen classes. Accuracy is the mean over the "
        "classes of the share of a class's test images that is named right."
    )
    return Table("results", caption, ["figure", "value", "what it is"], rows)


def summarise(results: Results, where: Localisation | None, data: ZeroShotDataset) -> list[str]:
    """The result in sentences for a reader who does not know the field."""
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
