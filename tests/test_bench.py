"""The benchmarks run as their documentation says, and check what they time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastzsl.ops import native

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_pytest_benchmark_compares_the_kernels() -> None:
    case = "bench/test_scores.py::test_scores[scores, f32, dot, B=1, C=10, d=512"
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "--benchmark-max-time=0.05", "-q"]
    done = subprocess.run(
        [*command, f"{case}-native]", f"{case}-einsum]"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "Median" in done.stdout


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.measure import check

    truth = torch.ones(3, 4, dtype=torch.float64)
    check({"right": lambda: [truth.float()]}, truth, torch.float32)
    with pytest.raises(AssertionError, match="wrong: relative error"):
        check({"wrong": lambda: [truth.float() * 1.01]}, truth, torch.float32)


SMALL = "scores, f32, dot, B=1, C=10, d=512"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which `python -m bench` keeps its tables, here an empty one."""
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import report

    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_a_case_run_on_another_machine_leaves_the_first_ones_files_alone(
    monkeypatch: pytest.MonkeyPatch, tables: Path
) -> None:
    from bench import machine
    from bench.__main__ import main

    monkeypatch.setattr(sys, "argv", ["bench", *SMALL.replace(",", "").split(), "--plain", "--seconds", "0"])
    monkeypatch.setattr(machine, "processor", lambda: "First(R) Processor, family 1")
    main()
    first = contents(tables)
    assert {name.partition("-")[0] for name in first} == {"first"}
    monkeypatch.setattr(machine, "processor", lambda: "Second(R) Processor, family 1")
    main()
    both = contents(tables)
    assert {name: both[name] for name in first} == first
    second = {name.replace("first", "second") for name in first}
    assert set(both) == set(first) | second
    for name in second:
        assert b"Second" in both[name]
        assert b"First" not in both[name]


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
@pytest.mark.parametrize("changed", ["processor", "isa", "threads"])
def test_processor_set_and_threads_each_have_a_file(
    monkeypatch: pytest.MonkeyPatch, tables: Path, changed: str
) -> None:
    from bench import report
    from bench.machine import conditions

    here = {"processor": "A Processor", "isa": "avx2", "threads": 2}
    value = {"times": {"native": 1.0, "einsum": 3.0}, "peak": 10.0, "operations": 5.0}
    monkeypatch.setattr(report, "machine", lambda: here)
    kept = report.store(SMALL, value, conditions(shared=False))
    assert kept.name == "a-processor-avx2-2-threads.json"
    there = here | {changed: 1 if changed == "threads" else "other"}
    monkeypatch.setattr(report, "machine", lambda: there)
    other = report.store(SMALL, value, conditions(shared=False))
    assert other != kept
    assert [json.loads(path.read_text())["machine"] for path in (kept, other)] == [here, there]


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_a_second_case_joins_the_first_and_two_names_never_share_a_file(
    monkeypatch: pytest.MonkeyPatch, tables: Path
) -> None:
    from bench import report
    from bench.cases import CASES

    value = {"times": {"native": 1.0, "einsum": 3.0}, "peak": 10.0, "operations": 5.0}
    measured = {"torch": "2.14.1", "python": "3.11.7", "clock": "wall clock", "date": "2001-02-03"}
    monkeypatch.setattr(report, "machine", lambda: {"processor": "A, B", "isa": "avx2", "threads": 2})
    report.store(SMALL, value, measured)
    attention = next(case.name for case in CASES if case.op == "dense_attention")
    path = report.store(attention, value, measured | {"date": "2002-03-04"})
    assert set(json.loads(path.read_text())["results"]) == {SMALL, attention}
    page = path.with_suffix(".md").read_text()
    head = page.partition("|")[0]
    for fact in ("A, B", "avx2", "Threads: 2", "PyTorch 2.14.1", "Python 3.11.7", "2001-02-03, 2002-03-04"):
        assert fact in head
    before = contents(tables)
    monkeypatch.setattr(report, "machine", lambda: {"processor": "A B", "isa": "avx2", "threads": 2})
    with pytest.raises(ValueError, match="this machine is"):
        report.store(SMALL, value, measured)
    assert contents(tables) == before


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()) or "never")
def test_the_tables_of_the_repository_are_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.cases import CASES
    from bench.machine import slug
    from bench.report import RESULTS, markdown
    from bench.step import STEPS

    files = sorted(RESULTS.glob("*.json"))
    assert files
    assert {path.stem for path in RESULTS.iterdir()} == {path.stem for path in files}
    for path in files:
        kept = json.loads(path.read_text())
        assert path.stem == slug(kept["machine"])
        known = {case.name for case in CASES} | {step.name for step in STEPS}
        assert set(kept["results"]) <= known | {"whole job", "memory", "crossover"}
        assert path.with_suffix(".md").read_text() == markdown(kept)
