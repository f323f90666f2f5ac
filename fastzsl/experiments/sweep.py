"""H against alpha and eta on held-out seen classes, which shows how much these weights matter."""

from __future__ import annotations

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.experiments.statistics import mean_and_sd
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.folds import ClassDraws
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.trials import Trial, TrialTable
from fastzsl.training.settings import Settings

SWEPT: dict[str, tuple[float, ...]] = {"alpha": (0.0, 0.005, 0.02, 0.1, 0.5), "eta": (0.0, 0.3, 1.0, 3.0)}

SweepTrials = dict[str, dict[float, list[Trial]]]


def sweep_trials(settings: Settings, data: ZeroShotDataset) -> SweepTrials:
    """Setting -> value -> trials on problems of held-out classes, the value in use included."""
    problems = ClassDraws(settings.protocol.gamma_folds, settings.run.seed).problems()
    return {
        name: {
            value: [Trial.of(settings.changed(**{name: value}), data, problem) for problem in problems]
            for value in sorted({*values, getattr(settings.method, name)})
        }
        for name, values in SWEPT.items()
    }


def sweep_rows(trials: SweepTrials, table: TrialTable) -> dict[str, list[tuple[float, float, float]]]:
    """Setting -> (value, mean H, its deviation over the problems), at the gamma with the highest mean H."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for name, values in trials.items():
        rows[name] = []
        for value, own in values.items():
            scores = [table[t].scores for t in own]
            gamma = best_common_gamma(scores)
            rows[name].append((value, *mean_and_sd([evaluate(s, gamma).H for s in scores])))
    return rows
