"""Fine-tuned backbones: what is trained, on which images, and that a run keeps its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from fastzsl import eval as evaluation
from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses, SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.files.tensors import load_tensors
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.context import Context
from fastzsl.methods.problem import Problem
from fastzsl.prediction.recogniser import load
from fastzsl.protocol.trials import Trial, TrialTable, load_source
from fastzsl.protocol.workers import run_trials
from fastzsl.train import train
from fastzsl.training.finetuning import FinetunedFeatures, finetune, random_part
from fastzsl.training.inputs import load_images
from fastzsl.training.settings import DataSettings, FeatureSettings, Settings

CLASSES, IMAGES = "opqrstu", 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven classes of one colour each, with some noise; the last two are unseen."""
    rows = ["class,split,a,b,c"]
    generator = np.random.default_rng(0)
    for i, name in enumerate(CLASSES):
        (tmp_path / "data" / "images" / name).mkdir(parents=True)
        rows.append(f"{name},{'unseen' if i > 4 else 'seen'},{i},{i % 2},{i * i}")
        for j in range(IMAGES):
            colour = 255 * np.array([i & 1, i & 2, i & 4]).clip(0, 1)
            pixels = np.clip(colour + generator.normal(0, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / name / f"{j}.png")
    (tmp_path / "data" / "classes.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def small(folder: Path, out: Path, **changes: object) -> Settings:
    return Settings(
        DataSettings("folder", root=folder),
        FeatureSettings("timm/test_resnet", "random", image_size=64, finetune_epochs=2),
        Attended(hidden=8, epochs=2, batch_size=8),
    ).changed(out=out, gamma_folds=0, **changes)


class Painted:
    """The images of a source, some of them all black."""

    def __init__(self, source: object, black: set[int]) -> None:
        self._source, self._black = source, black

    def __len__(self) -> int:
        return len(self._source)  # type: ignore[arg-type]

    def image(self, index: int) -> Image.Image:
        image = self._source.image(index)  # type: ignore[attr-defined]
        return Image.new("RGB", image.size) if index in self._black else image

    def describe(self, index: int) -> str:
        return self._source.describe(index)  # type: ignore[attr-defined,no-any-return]


def features_of(data: ZeroShotDataset, epochs: int = 1) -> FinetunedFeatures:
    assert data.images is not None
    settings = FeatureSettings("timm/test_resnet", "random", image_size=64, finetune_epochs=epochs)
    return FinetunedFeatures(
        settings, data.images, data.fingerprint, torch.device("cpu"), Progress(disable=True)
    )


def test_the_second_half_is_trained_to_tell_the_classes_apart(folder: Path) -> None:
    data = load_images(DataSettings("folder", root=folder))
    backbone = load_backbone("timm/test_resnet", "random", 64)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    losses: list[float] = []
    context = Context(listener=lambda step, total, figures: losses.append(figures["loss"]))
    finetune(backbone, Problem(data), 25, context)
    assert sum(losses[-5:]) / 5 < 0.93 * sum(losses[:5]) / 5
    names = [name for name, _ in backbone.named_parameters()]
    half = len(names) // 2
    after = backbone.state_dict()
    unchanged = {name for name in after if torch.equal(after[name], before[name])}
    assert set(names[:half]) <= unchanged
    assert not set(names[half:]) & unchanged
    assert set(after) - set(names) <= unchanged, "batch statistics stay"
    assert all(p.requires_grad for p in backbone.parameters()), "as before"


def test_both_of_two_backbones_are_trained(folder: Path) -> None:
    data = load_images(DataSettings("folder", root=folder))
    backbone = load_backbone("timm/test_resnet+timm/test_efficientnet", "random", 64)
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    finetune(backbone, Problem(data), 1, Context())
    moved = [name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])]
    assert {name.split(".")[2] for name in moved} == {"0", "1"}


def test_a_part_is_large_enough_and_its_corners_are_reached(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = np.asarray(random_part(image, [1 - 1e-9, 1 - 1e-9, 0.5, 0.5, 0.9]))
    np.testing.assert_array_equal(whole, pixels)
    last = np.asarray(random_part(image, [0, 0, 1 - 1e-9, 1 - 1e-9, 0.9]))
    np.testing.assert_array_equal(last, pixels[10:, 15:])
    mirrored = np.asarray(random_part(image, [0, 0, 0, 0, 0.1]))
    np.testing.assert_array_equal(mirrored, pixels[:30, :45][:, ::-1])
    for numbers in np.random.default_rng(seed).random((50, 5)):
        part = random_part(image, numbers)
        assert part.width >= 45
        assert part.height >= 30


def test_a_held_out_problem_has_a_backbone_that_saw_none_of_its_test_images(folder: Path) -> None:
    data = load_images(DataSettings("folder", root=folder))
    held_out = HeldOutClasses(0, fold=0, folds=2)
    own = features_of(data)
    problem = SeenClassesOnly(replace(data, adapt=own)).problem(held_out)
    assert own.weights(problem) != own.weights(data)
    weights = load_tensors(own.weights(problem))

    kept = set(problem.image_ids[problem.trainval].tolist())
    black = Painted(data.images, set(range(len(data.labels))) - kept)
    painted = replace(data, images=black, fingerprint="painted")  # type: ignore[arg-type]
    other = features_of(painted)
    same = SeenClassesOnly(replace(painted, adapt=other)).problem(held_out)
    assert other.weights(same) != own.weights(problem)  # trained again, not found
    again = load_tensors(other.weights(same))
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    with pytest.raises(PermissionError):
        same.regions.regions(data.test_unseen[:1])  # type: ignore[union-attr]


def test_a_run_keeps_its_backbone_and_evaluates_and_predicts_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(small(folder, out))
    plain = tmp_path / "plain"
    train(small(folder, plain, finetune_epochs=0))
    assert (out / "backbone.safetensors").is_file()
    assert not (plain / "backbone.safetensors").exists()

    before = (out / "results.json").read_text()
    shutil.rmtree(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("fastzsl.training.finetuning.finetune", None)  # nothing is trained again
        found = evaluation.main([str(out), "--json"])
        capsys.readouterr()
        image = Image.open(next((folder / "images").rglob("*.png"))).convert("RGB")
        tuned, pretrained = load(out), load(plain)
    assert f'"T1": {found.T1}' in before
    maps = [r.backbone.trunk(torch.ones(1, 3, 64, 64)) for r in (tuned, pretrained)]
    assert not torch.equal(*maps)
    assert len(tuned.predict(image)) == 1
    named = load_backbone("timm/test_resnet", out / "backbone.safetensors", 64)
    assert torch.equal(named.trunk(torch.ones(1, 3, 64, 64)), maps[0])

    (out / "backbone.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match=r"backbone\.safetensors: not a whole safetensors file"):
        load(out)


def test_gamma_and_searches_fine_tune_for_each_problem(folder: Path, tmp_path: Path) -> None:
    settings = small(folder, tmp_path / "run").changed(gamma_folds=2)
    train(settings)
    assert len(list((tmp_path / "cache" / "finetuned").iterdir())) == 3
    data = load_source(Trial.of(settings, load_images(settings.data)).source)
    plain = settings.changed(finetune_epochs=0)
    assert Trial.of(settings, data).key != Trial.of(plain, data).key
    trials = [Trial.of(settings, data, HeldOutClasses(5, fold, 2)) for fold in range(2)]
    table = TrialTable(tmp_path / "trials")
    run_trials(trials, table, data=data, workers=2)
    assert all(trial in table for trial in trials)
    assert len(list((tmp_path / "cache" / "finetuned").iterdir())) == 5


def test_what_cannot_be_fine_tuned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--finetune-epochs is -1"):
        FeatureSettings(finetune_epochs=-1)
    tuned = FeatureSettings(finetune_epochs=1)
    with pytest.raises(UserError, match="--finetune-epochs 1 works on images"):
        Settings(DataSettings("hdf5", features=Path("f.h5")), tuned)
    with pytest.raises(UserError, match="--train-backbone"):
        Settings(features=tuned, method=Attended(train_backbone=True))
