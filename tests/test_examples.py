"""The examples run as they are, and the console command lists and runs what there is."""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastzsl
from fastzsl.__main__ import COMMANDS, main

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_own_loop_trains_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run("own_loop.py", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    accuracy = float(lines[-1].split(": ")[1].split()[0])
    assert accuracy > 0.5
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines[:-1]]
    assert losses[-1] < losses[0]


def test_forgetting_fit_scaling_is_told_once() -> None:
    model = fastzsl.AttendedAutoencoder(16, 3)
    inputs = (100 * torch.randn(4, 9, 16), torch.tensor([0, 1, 0, 1]), torch.rand(3, 3), torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match="fit_scaling"):
        model.loss(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.loss(*inputs)
        fitted = fastzsl.AttendedAutoencoder(16, 3)
        fitted.fit_scaling(inputs[0], inputs[2][:2])
        fitted.loss(*inputs)
        loaded = fastzsl.AttendedAutoencoder(16, 3)
        loaded.load_state_dict(fitted.state_dict())
        loaded.loss(*inputs)


def test_the_op_in_a_model_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run("op_in_a_model.py", monkeypatch)
    assert "gradients differ by" in capsys.readouterr().out


def test_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["class,split,a,b"]
    for i in range(5):
        (tmp_path / "images" / f"c{i}").mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"c{i}" / f"{k}.png")
        lines.append(f"c{i},{'unseen' if i > 3 else 'seen'},{i & 1},{i >> 1}")
    (tmp_path / "classes.csv").write_text("\n".join(lines))
    _run("own_images.py", monkeypatch, str(tmp_path), "epochs=1", "hidden=8", "gamma_folds=1")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(str(tmp_path / "images" / "c0" / "0.png"))
    assert last.count("'c") + last.count("something new") == 3


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its cells in order, as a kernel would run them."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "zero_shot.ipynb").read_text("utf-8"))
    monkeypatch.setitem(os.environ, "FASTZSL_EPOCHS", "1")
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    names: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for cell in cells:
        assert not cell["outputs"], "a committed notebook has no outputs"
        exec(compile("".join(cell["source"]), "notebook", "exec"), names)


def test_the_command_lists_all_entry_points(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(fastzsl.__file__).parent
    entries = {p.stem for p in folder.glob("*.py") if "\ndef main(" in p.read_text("utf-8")} - {"__main__"}
    assert set(COMMANDS) == entries
    main([])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    main(["info", "--json"])
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_an_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["trian"])
    assert caught.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line == 'fastzsl: error: unknown command trian; did you mean "train"? (fastzsl --help)'
    with pytest.raises(SystemExit) as caught:
        main(["make-dataset", "--images", "nowhere"])
    assert caught.value.code == 2
