"""The paper's experiments from one command: statistics, tables, and the whole on a small folder of images."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from fastzsl.command.run_settings import base_settings
from fastzsl.experiments.entries import ABLATIONS, FULL, find_entries
from fastzsl.experiments.experiment import Experiment, TrainingResult, plan
from fastzsl.experiments.sources import seeded
from fastzsl.experiments.statistics import mean_and_sd, paired_difference
from fastzsl.experiments.tables import differences, percent, table_1, table_2
from fastzsl.methods import METHODS
from fastzsl.protocol.metrics import Results
from fastzsl.protocol.metrics import TestScores as Scores
from fastzsl.protocol.trials import TrialResult
from fastzsl.report.tables import Table
from fastzsl.reproduce import main
from fastzsl.training.settings import DataSettings, Settings, load_settings
from fastzsl.tune import main as tune
from tests.methods.planted import planted


def test_paired_differences_agree_with_scipy(seed: int) -> None:
    first, second = torch.rand(2, 7, dtype=torch.float64).numpy()
    ours = paired_difference(first, second)
    truth = stats.ttest_rel(first, second)
    low, high = truth.confidence_interval(0.95)
    assert (ours.mean, ours.low, ours.high, ours.p) == pytest.approx(
        ((first - second).mean(), low, high, truth.pvalue), rel=1e-9
    )
    assert ours.wins == (first > second).sum()
    assert ours.significant == (truth.pvalue < 0.05)


def test_the_interval_covers_the_true_difference_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        common = rng.normal(size=5)
        d = paired_difference(common + 0.3 + 0.1 * rng.normal(size=5), common)
        hits += d.low <= 0.3 <= d.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


def test_edges_of_the_statistics() -> None:
    assert math.isnan(mean_and_sd([0.5])[1])
    alone = paired_difference([0.5], [0.4])
    assert alone.mean == pytest.approx(0.1)
    assert not alone.significant
    assert paired_difference([0.5, 0.5], [0.5, 0.5]).p == 1
    with pytest.raises(ValueError, match="2 values against 1"):
        paired_difference([1, 2], [1])
    assert percent([]) == "-"
    assert percent([0.5]) == "50.0"
    assert percent([0.5, 0.6]) == "55.0 ± 7.1"


def made_experiment(dataset: str = "cub", seeds: int = 3) -> Experiment:
    """Figures that tell entry, seed and setting apart."""
    nothing = torch.zeros(0)
    finished = []
    for seed in range(seeds):
        for i, entry in enumerate(ABLATIONS):
            base = 0.1 * i + 0.01 * seed
            results = Results(base + 0.2, base, base + 0.1, base + 0.05, 0.1, base / 2, 0.9, base / 5, 0.3)
            result = TrialResult(Scores(*[nothing] * 6), {"loss": 1.0})
            settings = entry.configure(Settings().changed(seed=seed))
            finished.append(TrainingResult(plan(dataset, entry, settings, planted()), results, result))
    return Experiment(finished)


def test_tables_have_the_papers_layout_and_its_rows_are_marked() -> None:
    one = table_1(made_experiment())
    assert one.header == ["method", "source", "CUB"]
    assert one.rows[0] == ["ConSE", "published", "34.3"]
    assert {one.rows[i][1] for i in one.marked} == {"published"}
    assert one.rows[-1] == ["Ours", "measured here", "61.0 ± 1.0"]
    two = table_2(made_experiment())
    assert two.header[2:] == ["CUB S→T", "CUB U→T", "CUB H"]
    assert ["Ours", "published", "45.1", "52.1", "48.3"] in two.rows
    assert two.rows[-1] == ["Ours", "measured here", "51.0 ± 1.0", "41.0 ± 1.0", "46.0 ± 1.0"]
    without = two.rows[-2]
    assert without[0] == "Ours w/o C"
    assert without[2:] == ["90.0 ± 0.0", "20.5 ± 0.5", "8.2 ± 0.2"]
    assert not table_1(made_experiment("shapes")).marked, "the paper has no rows for other data"


def test_differences_name_what_holds_and_what_does_not() -> None:
    rows = differences(made_experiment()).rows
    no_sr = next(r for r in rows if r[1] == "Ours w/o SR" and r[2] == "T1")
    assert no_sr[3] == "+40.0"
    assert no_sr[6] == "3/3"
    assert no_sr[-1] == "yes"
    assert next(r for r in rows if r[1] == "Ours w/o C")[2] == "H"


def test_the_three_formats_hold_the_same_cells() -> None:
    table = Table("t", "50% of A_b", ["method", "x→y"], [["a & b_c", "1.0 ± 0.1"], ["p|q", "-"]])
    assert list(csv.reader(table.csv().splitlines())) == [table.header, *table.rows]
    assert "| p\\|q | - |" in table.markdown()
    latex = table.latex()
    assert r"a \& b\_c & 1.0 $\pm$ 0.1 \\" in latex
    assert r"\caption{50\% of A\_b}" in latex
    assert latex.count(r"\\") == 3


def test_every_repetition_of_shapes_has_its_own_classes_and_a_benchmark_keeps_its_split() -> None:
    assert seeded(Settings(), 4, False).data.data_seed == 4
    folder = Settings(DataSettings("folder", root=Path("x")))
    assert seeded(folder, 4, False).data.class_split is None
    assert seeded(folder, 4, False).run.seed == 4
    assert seeded(folder, 4, True).data.class_split == 4


def test_each_ablation_takes_one_part_away() -> None:
    assert [e.name for e in find_entries(("pooled",))] == ["pooled", FULL.name]
    base = Settings().changed(epochs=7)
    for entry in ABLATIONS:
        method = entry.configure(base).method
        assert method.epochs == 7, "what the experiment starts from holds for its rows"
        changed = {k for k, v in vars(method).items() if v != getattr(base.method, k)}
        assert changed == set(entry.changes), "a change that is the default already tests nothing"
        assert bool(changed) == (entry.method == "attended" and entry is not FULL)


def test_other_methods_start_from_their_own_defaults_and_all_means_all() -> None:
    entries = find_entries(("all",))
    assert {e.method for e in entries} == set(METHODS)
    eszsl = next(e for e in entries if e.name == "eszsl")
    assert eszsl.configure(Settings()).method == METHODS["eszsl"]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--datasets", "shaps"], "there is no shaps; did you mean"),
        (["--datasets", "cub"], "--root"),
        (["--methods", "no-sre"], 'did you mean "no-sr"'),
        (["--budget", "soon"], "--budget is soon; wanted a time"),
        (["--set", "etta=1"], 'wanted NAME=VALUE; did you mean "eta"'),
        (["--set", "eta=much"], "--set eta is 'much'; wanted a number"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--datasets", "folder", "--root", "nowhere", "--distractors", "1"], "only shapes has them"),
    ],
)
def test_bad_arguments_are_named_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_settings_are_read_as_numbers() -> None:
    method = base_settings(None, None, ("lr=1e-3", "epochs=2", "coupled=false")).method
    assert method.settings()["lr"] == 1e-3
    assert method.settings()["epochs"] == 2
    assert method.settings()["coupled"] is False


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Nine classes of six small images, each class a colour."""
    rng = np.random.default_rng(0)
    lines = ["class,split,red,green,blue"]
    for c in range(9):
        colour = rng.random(3)
        folder = tmp_path / "data" / "images" / f"c{c}"
        folder.mkdir(parents=True)
        for i in range(6):
            noise = rng.normal(0, 20, (32, 32, 3))
            pixels = np.clip(255 * colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"c{c},{'unseen' if c > 5 else 'seen'}," + ",".join(f"{v:.3f}" for v in colour))
    (tmp_path / "data" / "classes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def test_the_whole_on_a_folder_of_images_leaves_tables_figures_and_report(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [
        "--datasets", "folder", "--root", str(images), "--out", str(out), "--seeds", "2",
        "--methods", "pooled", "no-ma", "eszsl", "joint-space",
        "--set", "epochs=2", "gamma_folds=1", "batch_size=16", "accelerator=cpu",
        "--workers", "1",
    ]  # fmt: skip
    main(command)
    capsys.readouterr()
    names = {p.name for p in out.iterdir()}
    for table in ("table1", "table2", "differences", "attention", "methods-folder"):
        assert {f"{table}.md", f"{table}.csv", f"{table}.tex"} <= names
    assert {"folder-gamma.png", "folder-confusion.png", "folder-classes.png", "folder-ablations.png"} <= names
    assert {"folder-alpha-eta.png", "folder-attention-attended.png", "folder-attention-no-ma.png"} <= names
    results = json.loads((out / "results.json").read_text())
    assert len(results["trainings"]) == 8
    assert "of equal size" in str(results["left_out"]), "3 attributes are no embeddings of 1280"
    assert "not run: " in (out / "methods-folder.md").read_text()
    assert "training images only" in results["chosen_on"]["gamma"]
    rows = list(csv.reader((out / "table1.csv").open()))
    measured = [t["T1"] for t in results["trainings"] if t["method"] == "attended"]
    assert rows[-1] == ["Ours", "measured here", percent(measured)]
    report = (out / "report.html").read_text()
    assert "Average pooling" in report
    assert "attention of c" in report, "the gallery"

    stamps = {p: p.stat().st_mtime_ns for p in (out / "trials").rglob("trial.json")}
    main(command)
    assert {p: p.stat().st_mtime_ns for p in (out / "trials").rglob("trial.json")} == stamps, "trained again"
    assert json.loads((out / "results.json").read_text()) == results


def test_tuning_leaves_a_configuration_that_training_takes(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tune"
    tune([
        "--dataset", "folder", "--root", str(images), "--out", str(out), "--folds", "2", "--workers", "1",
        "--grid", "lr=1e-9,1e-2", "epochs=1,3", "--set", "batch_size=16", "accelerator=cpu",
    ])  # fmt: skip
    record = json.loads((out / "selection.json").read_text())
    assert "2 folds of the seen classes" in record["chosen_on"]
    chosen = load_settings(out / "config.yaml").method
    assert {"lr": chosen.lr, "epochs": chosen.epochs} == record["chosen"]
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert sum(bool(r["chosen"]) for r in rows) == 1
    assert float(next(r for r in rows if r["chosen"])["H"]) == max(float(r["H"]) for r in rows)
    with pytest.raises(SystemExit):
        tune(["--grid", "lr", "--out", str(out)])
    assert "wanted NAME=VALUE,VALUE" in capsys.readouterr().err
