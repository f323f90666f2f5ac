"""Where a model with attention of single attributes looks for each: in predictions, overlays, the gallery."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastzsl
from fastzsl import predict
from fastzsl.data.formats.drawing import draw_image
from fastzsl.errors import UserError
from fastzsl.methods import METHODS
from fastzsl.report import gallery
from fastzsl.train import train
from fastzsl.training.settings import Settings

ATTRIBUTES = ("round", "red bill", "dotted")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for label in range(6):
        (root / "images" / f"class {label}").mkdir(parents=True)
        for i in range(3):
            draw_image([(label, label, label % 4)], rng, 64)[0].save(
                root / "images" / f"class {label}" / f"{i}.png"
            )
        rows.append(
            [f"class {label}", "unseen" if label > 3 else "seen", *(label >> b & 1 for b in range(3))]
        )
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["class", "split", *ATTRIBUTES], *rows])
    return root


def _train(folder: Path, out: Path, name: str, **settings: object) -> Path:
    method = METHODS[name](epochs=1, batch_size=8, backend="eager", **settings)  # type: ignore[call-arg]
    train(Settings(method=method).changed(
        dataset="folder", root=folder, backbone="timm/test_resnet", backbone_weights="random",
        gamma_folds=0, accelerator="cpu", out=out,
    ))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTZSL_CACHE", str(out / "cache"))
        return {
            "dazle": _train(folder, out / "dazle", "dazle"),
            "reduced": _train(folder, out / "reduced", "dazle", attributes=2),
        }


def test_maps_are_the_models_own(runs: dict[str, Path], folder: Path) -> None:
    recogniser = fastzsl.load(runs["dazle"])
    image = folder / "images" / "class 1" / "0.png"
    (found,) = recogniser.predict(image, attributes=["red bill", "round"], attention_top=1)
    assert list(found.attribute_attention) == ["red bill", "round"]
    pixels = recogniser.backbone.preprocess(Image.open(image).convert("RGB"))
    with torch.inference_mode():
        maps = recogniser.backbone(pixels[None])
        attention = recogniser.model.attribute_attention(maps.flatten(2).transpose(1, 2))[0]
    for name, place in (("red bill", 1), ("round", 0)):
        own = found.attribute_attention[name]
        torch.testing.assert_close(
            own.flatten(), attention[place], atol=1e-3, rtol=0
        )  # the run's features are rounded to float16
        assert float(own.sum()) == pytest.approx(1, abs=1e-4)
        assert found.attribute_heatmap(name, 20, 30).shape == (20, 30)
    with pytest.raises(ValueError, match="no attention was kept for attribute dotted"):
        found.attribute_heatmap("dotted", 20, 30)
    assert recogniser.predict(image)[0].attribute_attention == {}


def test_the_command_writes_one_overlay_for_each_attribute(
    runs: dict[str, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = folder / "images" / "class 1" / "0.png", tmp_path / "maps"
    predict.main(
        [
            str(runs["dazle"]),
            str(image),
            "--heatmap",
            str(out),
            "--json",
            "--attributes",
            "red bill",
            "dotted",
        ]
    )
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    assert entry["attributes"] == {
        "red bill": str(out / "0-1-red_bill.png"), "dotted": str(out / "0-2-dotted.png")
    }  # fmt: skip
    assert sorted(out.iterdir()) == sorted(Path(p) for p in entry["attributes"].values())
    assert Image.open(out / "0-1-red_bill.png").size == Image.open(image).size
    assert "heatmap" not in entry["predictions"][0]


@pytest.mark.parametrize(("run", "arguments", "message"), [
    ("dazle", ["--heatmap", "maps", "--attributes", "red bil"],
     '"red bil" is no attribute of the run; wanted names among its 3 attributes'),
    ("dazle", ["--attributes", "round"], "--attributes round shows where the model looked for it; wanted --heatmap"),
    ("reduced", ["--heatmap", "maps", "--attributes", "round"], "no attention of single attributes; wanted a run of"),
])  # fmt: skip
def test_wrong_input_is_one_line(
    run: str, arguments: list[str], message: str, runs: dict[str, Path], folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        predict.main([str(runs[run]), str(folder / "images" / "class 1" / "0.png"), *arguments])
    assert exit.value.code == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert "did you mean" in told or run != "dazle" or "red bil" not in arguments


def test_unknown_attributes_of_python_callers(runs: dict[str, Path], folder: Path) -> None:
    with pytest.raises(UserError, match='"bill" is no attribute of the run'):
        fastzsl.load(runs["dazle"]).predict(folder / "images", attributes=["bill"])


def test_the_report_shows_the_most_telling_attributes(runs: dict[str, Path]) -> None:
    """Class 4 has only the third attribute, class 5 the first and the third."""
    assert "most telling attributes" in (runs["dazle"] / "report.html").read_text()
    assert '<figure class="attribute">' in (runs["dazle"] / "report.html").read_text()
    assert "most telling attributes" not in (runs["reduced"] / "report.html").read_text()
    embeddings = torch.tensor([[label >> b & 1 for b in range(3)] for label in range(6)]).float()
    telling = gallery._telling_attributes(embeddings)
    assert telling[4] == [2]
    assert sorted(telling[5]) == [0, 2]
