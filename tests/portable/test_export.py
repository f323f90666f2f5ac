"""Exported runs agree with the run for other numbers of images and classes, and need nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastzsl
import fastzsl.export
from fastzsl.data.formats.folder import read_class_table
from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.methods.catalogue import find_method
from fastzsl.methods.method import new_model
from fastzsl.portable.folder import export_run
from fastzsl.portable.module import ScoringModule
from fastzsl.prediction.classes import OwnClasses
from fastzsl.prediction.recogniser import Recogniser

NAMES = ("ball", "box", "cone", "ring")


def recogniser(folder: Path, method: str = "attended", half: bool = True) -> Recogniser:
    """An untrained model of a small backbone, with four classes of three attributes."""
    table = folder / "classes.csv"
    rows = [
        f"{name},{'unseen' if i == 3 else 'seen'},{i & 1},{i >> 1},{0.5 * i}" for i, name in enumerate(NAMES)
    ]
    table.write_text("class,split,red,round,weight\n" + "\n".join(rows) + "\n")
    own = OwnClasses(read_class_table(table), 0.25)
    backbone = load_backbone("timm/test_resnet", "random")
    model = new_model(find_method(method)(), backbone.feature_dim, 3, 0)
    if hasattr(model, "fit_scaling"):
        model.fit_scaling(torch.rand(8, backbone.feature_dim), own.embeddings[:3])
    return Recogniser(model, backbone, own, torch.device("cpu"), half)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recogniser, Path, dict[str, float]]:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason="needs pip install 'fastzsl[export]'")
    folder = tmp_path_factory.mktemp("export")
    own = recogniser(folder)
    return own, folder / "out", export_run(own, folder / "out", attention=True)


def _inputs(own: Recogniser, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    side = own.backbone.image_size
    return torch.rand(images, 3, side, side), torch.randn(classes, 3)


def test_onnx_takes_any_number_of_images_and_classes(
    exported: tuple[Recogniser, Path, dict[str, float]],
) -> None:
    import onnxruntime

    own, out, differences = exported
    assert differences.keys() == {"onnx", "torch", "plain"}
    assert all(0 <= value <= 1e-5 for value in differences.values())
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    module = ScoringModule(own, attention=True)
    for images, classes in ((1, 1), (3, 11)):
        inputs = _inputs(own, images, classes)
        with torch.no_grad():
            scores, attention = module(*inputs)
        names = ("images", "class_embeddings")
        found = session.run(["scores", "attention"], {n: t.numpy() for n, t in zip(names, inputs)})
        np.testing.assert_allclose(found[0], scores, atol=1e-5)
        np.testing.assert_allclose(found[1], attention, atol=1e-5)
        np.testing.assert_allclose(found[1].sum((2, 3)), 1, atol=1e-5)


def test_the_torch_program_takes_them_too(exported: tuple[Recogniser, Path, dict[str, float]]) -> None:
    own, out, _ = exported
    program = torch.export.load(out / "model.pt2").module()
    inputs = _inputs(own, 1, 7)
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs)[0], ScoringModule(own)(*inputs), rtol=0, atol=1e-5)


def test_the_plain_folder_recognises_as_the_run_does_without_this_package(
    exported: tuple[Recogniser, Path, dict[str, float]], tmp_path: Path
) -> None:
    own, out, _ = exported
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(image)
    block = "import sys; sys.modules['fastzsl'] = sys.modules['timm'] = None; import runpy; "
    call = f"sys.argv = ['use.py', {str(image)!r}]; sys.path.insert(0, '.'); runpy.run_path('use.py')"
    ran = subprocess.run(
        [sys.executable, "-c", block + call], cwd=out / "plain", capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    expected = own.predict(image)[0].top(5)
    assert [name for _, name in lines] == [name for name, _ in expected]
    np.testing.assert_allclose([float(v) for v, _ in lines], [v for _, v in expected], atol=2e-4)
    about = json.loads((out / "classes.json").read_text())
    assert about["gamma"] == 0.25
    assert [c["kind"] for c in about["classes"]] == ["seen", "seen", "seen", "unseen"]


@pytest.mark.parametrize("method", ["attended", "pooled", "eszsl", "dazle"])
def test_other_methods(method: str, tmp_path: Path) -> None:
    own = recogniser(tmp_path, method, half=False)
    if method == "dazle":
        own.model.fit_descriptions(own.own.embeddings[:3])  # type: ignore[operator]
    if method == "eszsl":
        for name, buffer in own.model.named_buffers():
            if not buffer.numel():  # what `fit` would have filled
                setattr(own.model, name, torch.randn(own.backbone.feature_dim, 3))
    export_run(own, tmp_path / "out", ("plain",))


def test_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = recogniser(tmp_path, "pooled")
    with pytest.raises(UserError, match="has no attention"):
        export_run(own, tmp_path / "out", ("plain",), attention=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        export_run(own, tmp_path / "full", ("plain",))
    own.model.depends_on_class_set = True  # type: ignore[misc]
    with pytest.raises(UserError, match="fits a classifier to each set of classes"):
        export_run(own, tmp_path / "out", ("plain",))
    assert not (tmp_path / "out").exists()
    for words, message in (
        ([str(tmp_path / "none")], "no folder"),
        ([str(tmp_path), "--forms", "tflite"], "--forms"),
    ):
        with pytest.raises(SystemExit) as caught:
            fastzsl.export.main(words)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_a_missing_extra_names_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[export\]'"):
        export_run(recogniser(tmp_path), tmp_path / "out", ("onnx",))
    assert not (tmp_path / "out").exists()
