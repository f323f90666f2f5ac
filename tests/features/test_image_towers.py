"""Image towers of image-text models as backbones, with small models of random weights."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import fastzsl
from fastzsl.data.formats.drawing import draw_image
from fastzsl.errors import UserError
from fastzsl.features.backbones import check_backbone, load_backbone
from fastzsl.methods.joint_space import JointSpace
from fastzsl.train import train
from fastzsl.training.settings import Settings

open_clip = pytest.importorskip("open_clip", reason="needs pip install 'fastzsl[image-text]'")

NAME = "fastzsl-tiny"
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "width": 24, "head_width": 12, "layers": 2}


@pytest.fixture(autouse=True, scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    config = {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT}
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture
def pixels(seed: int) -> torch.Tensor:
    return torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)


def test_regions_are_projected_tokens_whose_mean_is_the_embedding(pixels: torch.Tensor) -> None:
    backbone = load_backbone(f"open_clip/{NAME}", "random")
    assert (backbone.feature_dim, backbone.grid, backbone.image_size) == (12, (4, 4), 32)
    with torch.no_grad():
        maps = backbone(pixels)
        scaled = (pixels.float() / 255 - backbone.mean) / backbone.std
        embedding = backbone.trunk(scaled)
        backbone.trunk.output_tokens = True
        tokens = backbone.trunk(scaled)[1] @ backbone.trunk.proj  # (B, 16, 12)
    torch.testing.assert_close(maps.mean((2, 3)), embedding, rtol=1e-5, atol=1e-5)
    flat = maps.flatten(2).mT
    torch.testing.assert_close(flat - flat.mean(1, keepdim=True), tokens - tokens.mean(1, keepdim=True))
    assert flat.std(1).mean() > 0.01


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "EVA02-B-16"])
@pytest.mark.slow
def test_other_kinds_of_towers(name: str) -> None:
    backbone = load_backbone(f"open_clip/{name}", "random")
    pixels = torch.randint(256, (1, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
    with torch.no_grad():
        embedding = backbone.trunk((pixels.float() / 255 - backbone.mean) / backbone.std)
        torch.testing.assert_close(backbone(pixels).mean((2, 3)), embedding, rtol=1e-4, atol=1e-5)


def test_a_larger_image_has_more_regions() -> None:
    assert load_backbone(f"open_clip/{NAME}", "random", 64).grid == (8, 8)


def test_a_file_of_the_whole_model(tmp_path: Path, pixels: torch.Tensor) -> None:
    torch.manual_seed(7)
    model = open_clip.create_model(NAME)
    file = tmp_path / "own.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    backbone = load_backbone(f"open_clip/{NAME}", file)
    with torch.no_grad():
        scaled = (pixels.float() / 255 - backbone.mean) / backbone.std
        torch.testing.assert_close(
            backbone(pixels).mean((2, 3)), model.encode_image(scaled), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            NAME,
            None,
            "needs weights: open_clip/fastzsl-tiny.TAG for published ones, or --backbone-weights FILE",
        ),
        ("ViT-B-32.openai", "own.safetensors", "names its weights, and --backbone-weights others"),
        ("ViT-B-32", "gone.safetensors", "gone.safetensors: no such file"),
        ("coca_ViT-B-32", "random", "does not take images of 224"),
    ],
)
def test_wrong_weights_are_one_line(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone(f"open_clip/{name}", weights)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_names_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match='unknown backbone "open_clip/ViT-B-33"; did you mean'):
        check_backbone("open_clip/ViT-B-33")
    check_backbone("open_clip/ViT-B-32.openai")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[image-text\]'"):
        check_backbone("open_clip/ViT-B-32")


def test_training_free_and_trained_stand_on_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTZSL_CACHE", str(tmp_path / "cache"))
    root, rng = tmp_path / "data", np.random.default_rng(0)
    model = open_clip.create_model(NAME, pretrained=None)
    names = [f"class {label}" for label in range(5)]
    texts = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = [
        [name, "unseen" if label > 3 else "seen", *texts[label].tolist()] for label, name in enumerate(names)
    ]
    for label, name in enumerate(names):
        (root / "images" / name).mkdir(parents=True)
        for i in range(3):
            draw_image([(label, label, label % 4)], rng, 48)[0].save(root / "images" / name / f"{i}.png")
    with open(root / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["class", "split", *(f"t{i}" for i in range(12))], *rows])
    file = tmp_path / "own.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    settings = Settings().changed(
        dataset="folder", root=root, backbone=f"open_clip/{NAME}", backbone_weights=str(file), gamma_folds=0,
        accelerator="cpu", engine="torch",
    )  # fmt: skip
    train(replace(settings, method=JointSpace()).changed(out=tmp_path / "free"))
    train(settings.changed(out=tmp_path / "trained", hidden=8, epochs=1, recipe="given"))
    recogniser = fastzsl.load(tmp_path / "free")
    image = root / "images" / "class 4" / "0.png"
    found = recogniser.predict(image)[0].scores
    backbone = load_backbone(f"open_clip/{NAME}", file)
    with torch.no_grad():
        pixels = backbone.preprocess(Image.open(image))[None].float() / 255
        embedding = model.eval().encode_image((pixels - backbone.mean) / backbone.std)
    torch.testing.assert_close(found, F.normalize(embedding, dim=1)[0] @ texts.mT, rtol=0, atol=2e-3)
    assert fastzsl.load(tmp_path / "trained").predict(image)[0].scores.isfinite().all()
