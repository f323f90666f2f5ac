"""What a run chooses on held-out seen classes of the training images: gamma of equation 9 and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from fastzsl.protocol.metrics import Results, TestScores, evaluate, seen_unseen_curve
from fastzsl.protocol.probabilities import fit_probabilities


def best_common_gamma(problems: Sequence[TestScores]) -> float:
    """The gamma with the highest mean H over several problems; the middle, if a range of gammas has it.

    Args:
        problems: scores on held-out seen classes; without any, gamma is 0.
    """
    if not problems:
        return 0.0
    curves = [seen_unseen_curve(scores) for scores in problems]
    breaks = torch.cat([curve.breaks for curve in curves]).unique()
    if not len(breaks):
        return 0.0
    middles = torch.cat([breaks[:1] - 1e-3, (breaks[1:] + breaks[:-1]) / 2, breaks[-1:] + 1e-3])
    mean = torch.stack([c.harmonic[torch.searchsorted(c.breaks, middles)] for c in curves]).mean(0)
    return float(middles[int(mean.argmax())])


def calibrate(problems: Sequence[TestScores], gamma: float | None = None) -> dict[str, Any]:
    """The contents of gamma.json, as plain values.

    Args:
        problems: scores on held-out seen classes.
        gamma: chosen on them; default: `best_common_gamma`.

    Returns:
        gamma; held_out, the mean figures of the problems at this gamma; probabilities by the kind of choice. The last
        two are empty without problems.
    """
    gamma = best_common_gamma(problems) if gamma is None else gamma
    found = [evaluate(scores, gamma) for scores in problems]
    mean = {f.name: sum(getattr(r, f.name) for r in found) / len(found) for f in fields(Results) if found}
    probabilities = {name: own.as_dict() for name, own in fit_probabilities(problems, gamma).items()}
    return {"gamma": gamma, "held_out": mean, "probabilities": probabilities}
