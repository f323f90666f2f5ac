"""`python -m fastzsl.eval RUN`: the evaluation again, from the run folder, to the last digit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse, progress_bars
from fastzsl.errors import UserError
from fastzsl.protocol.metrics import evaluate
from fastzsl.protocol.scoring import localisation, test_scores
from fastzsl.report.results import print_results
from fastzsl.training.config import load_config
from fastzsl.training.inputs import feature_dim, prepare
from fastzsl.training.launch import open_fabric
from fastzsl.training.loop import build_model
from fastzsl.training.run import RunFolder


@dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Args:
        run: the run folder.
        json: print one JSON object with T1, U, S, H, gamma, U0, S0, H0 and AUSUC, as fractions.
    """

    run: Annotated[Path, tyro.conf.Positional]
    json: bool = False


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    settings = parse(
        Settings, arguments, "python -m fastzsl.eval", "Repeat the evaluation of a finished run."
    )
    if not settings.run.is_dir():
        raise UserError(f"no folder {settings.run}; wanted the run folder of python -m fastzsl.train")
    run = RunFolder(settings.run)
    config = load_config(run.config)
    gamma = run.load_gamma()
    console = Console(stderr=settings.json)
    fabric = open_fabric(config.accelerator, config.precision)
    with progress_bars(console) as progress:
        data, backbone = prepare(config, fabric.device, progress)
    model = build_model(data, config, feature_dim(data, backbone), backbone)
    run.load_model(model)
    fabric.setup_module(model)
    scores = test_scores(model, data)
    results = evaluate(scores, gamma)
    if settings.json:
        print(json.dumps(results.as_dict()))
    else:
        where = localisation(model, data, data.test_unseen)
        print_results(results, where, data, console)


if __name__ == "__main__":
    main()
