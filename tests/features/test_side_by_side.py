"""Several backbones at once: their maps side by side, none larger than another."""

from __future__ import annotations

import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.features.engines import frozen

TWO = "efficientnet_lite0+timm/vit_tiny_patch16_224"


def images(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_the_maps_of_each_stand_side_by_side() -> None:
    both = load_backbone("efficientnet_lite0+timm/resnet10t", "random", 64)
    one, other = (load_backbone(n, "random", 64) for n in ("efficientnet_lite0", "timm/resnet10t"))
    pixels = images(2, 64)
    found = both(pixels)
    assert both.feature_dim == found.shape[1] == one.feature_dim + other.feature_dim
    for part, own in (
        (found[:, : one.feature_dim], one(pixels)),
        (found[:, one.feature_dim :], other(pixels)),
    ):
        size = own.square().mean((1, 2, 3), keepdim=True).sqrt()
        torch.testing.assert_close(part, own / size, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_finer_grid_is_averaged_to_the_coarsest() -> None:
    both = load_backbone(TWO, "random")
    assert (both.image_size, both.grid) == (224, (7, 7))
    fine = load_backbone("timm/vit_tiny_patch16_224", "random")(images(1, 224))
    means = fine.unflatten(3, (7, 2)).unflatten(2, (7, 2)).mean((3, 5))
    wanted = means / means.square().mean().sqrt()
    torch.testing.assert_close(both(images(1, 224))[:, 1280:], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_every_engine_computes_them(engine: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setenv("FASTZSL_CACHE", str(tmp_path))
    both = load_backbone("efficientnet_lite0+timm/resnet10t", "random", 64)
    both.engine = engine  # type: ignore[assignment]
    with torch.no_grad():
        found = frozen(both)(images(3, 64))
        torch.testing.assert_close(found, both(images(3, 64)), rtol=1e-3, atol=1e-3)


def test_all_of_them_are_trained() -> None:
    both = load_backbone("efficientnet_lite0+timm/resnet10t", "random", 64).train()
    both(images(2, 64)).square().mul(torch.rand(2, both.feature_dim, 2, 2)).sum().backward()
    for backbone in both.trunk.backbones:
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in gradients)
        assert any(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_lite0+", "without a name on both sides"),
        ("+efficientnet_lite0", "without a name on both sides"),
        ("efficientnet_lite0+efficientnet_lite0", "names one twice"),
        ("efficientnet_lite0+efficientnet_lite9", 'unknown backbone "efficientnet_lite9"; did you mean'),
    ],
)
def test_wrong_names_are_told(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_backbone(name, "random")


def test_a_file_of_weights_is_for_one() -> None:
    with pytest.raises(UserError, match="is a file for one backbone"):
        load_backbone(TWO, "weights.safetensors")
