"""`python -m fastzsl.eval RUN`: repeat the evaluation of a run; the figures are equal to the last digit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from fastzsl.command.console import open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.protocol.attention import localisation
from fastzsl.protocol.metrics import Results, SeenResults, evaluate_run
from fastzsl.protocol.scoring import test_scores
from fastzsl.report.results import results_table
from fastzsl.report.tables import print_table
from fastzsl.training.inputs import check_names, prepare
from fastzsl.training.opened import open_run

DESCRIPTION = """Repeat the evaluation of a finished run.

It is refused if images, splits or descriptions have changed since the training.
"""


@dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Args:
        run: the run folder.
        json: print one JSON object with T1, U, S, H, gamma, U0, S0, H0 and AUSUC, as fractions; S, gamma and S0 alone
            if no unseen class has images.
        root: folder of the data set, if it was moved since the training.
        features: file of feature maps, if it was moved since the training.
        changed_data: evaluate even if the data set is not the one that the run was trained on.
    """

    run: Annotated[Path, tyro.conf.Positional]
    json: bool = False
    root: Path | None = None
    features: Path | None = None
    changed_data: bool = False


@exits_with_message
def main(arguments: list[str] | None = None) -> Results | SeenResults:
    asked = parse(Settings, arguments, "python -m fastzsl.eval", DESCRIPTION)
    console = open_console(stderr=asked.json)
    opened = open_run(asked.run)
    settings = opened.settings
    moved = {k: v for k in ("root", "features") if (v := getattr(asked, k)) is not None}
    settings = replace(settings, data=replace(settings.data, **moved))
    check_names(settings)
    with progress_bars(console) as progress:
        data, _ = prepare(settings, opened.fabric.device, progress, opened.finetuned)
    if not asked.changed_data:
        opened.folder.refuse_other_data(data)
    scores = test_scores(opened.model, data)
    results = evaluate_run(scores, opened.gamma)
    if asked.json:
        print(json.dumps(results.as_dict()))
    else:
        where = localisation(opened.model, data, data.test_unseen)
        print_table(results_table(results, where, data, opened.folder.load_held_out()), console)
    return results


if __name__ == "__main__":
    main()
