"""Engines: folding and OpenVINO compute the maps of the plain PyTorch module, and their caches are kept apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastzsl.data.find import Sources, find_dataset, with_features
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.engines import choose_engine, frozen
from fastzsl.features.extraction import cache_path, extract_features
from fastzsl.features.folding import folded
from fastzsl.features.opening import load_regions
from fastzsl.features.trunks import Preprocessing
from tests.features.feature_files import Noise, tiny_backbone

with_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs pip install 'fastzsl[openvino]'"
)


def pixels(backbone: Backbone, count: int = 3) -> Tensor:
    return torch.randint(256, (count, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)


def with_random_statistics(backbone: Backbone) -> Backbone:
    """As a trained model: no batch normalisation that changes nothing."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return backbone


def relative_error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


FAMILIES = ["resnet18", "densenet121", "timm/test_resnet", "timm/test_efficientnet", "timm/test_vit"]


@torch.inference_mode()
@pytest.mark.parametrize("name", FAMILIES)
def test_folding_changes_no_map(name: str, seed: int) -> None:
    backbone = with_random_statistics(load_backbone(name, "random", 64 if name == "densenet121" else None))
    images = pixels(backbone)
    wanted = backbone(images)
    copied = folded(backbone)
    assert relative_error(copied(images), wanted) < 1e-5
    assert torch.equal(backbone(images), wanted), "the backbone itself must not change"

    def count(model: nn.Module) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    assert count(copied) < count(backbone) or not count(backbone)


class Shared(nn.Module):
    """A convolution whose output is also used without its normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        return found + self.bn(found)


def test_what_cannot_be_folded_is_left_as_it_is(seed: int) -> None:
    backbone = with_random_statistics(Backbone("shared", Shared(), preprocessing=Preprocessing(16)))
    assert folded(backbone) is backbone
    plain = tiny_backbone()
    assert folded(plain) is plain
    half = load_backbone("resnet18", "random", 64)
    half.trunk.bfloat16()
    assert folded(half) is half


@with_openvino
@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/test_vit"])
def test_openvino_computes_pytorchs_maps_for_any_number_of_images(name: str, seed: int) -> None:
    backbone = load_backbone(name, None if name == "efficientnet_lite0" else "random")
    backbone.engine = "openvino"
    maps_of = frozen(backbone)
    again = frozen(backbone)  # from the cache
    for count in (1, 4):
        images = pixels(backbone, count)
        with torch.inference_mode():
            wanted = backbone(images)
        assert relative_error(maps_of(images), wanted) < 1e-4
        assert torch.equal(again(images), maps_of(images))


@with_openvino
def test_a_damaged_model_in_the_cache_is_made_again(tmp_path: Path, seed: int) -> None:
    backbone = load_backbone("timm/test_resnet", "random")
    backbone.engine = "openvino"
    frozen(backbone)
    images = pixels(backbone)
    with torch.inference_mode():
        wanted = backbone(images)
    for name, damage in (("model.bin", lambda b: bytes(len(b))), ("model.xml", lambda b: b[: len(b) // 2])):
        [kept] = (tmp_path / "cache" / "engines").glob(f"*/{name}")
        kept.write_bytes(damage(kept.read_bytes()))
        assert relative_error(frozen(backbone)(images), wanted) < 1e-4


@with_openvino
def test_features_of_two_engines_are_two_files_and_no_partial_file_is_shared(tmp_path: Path) -> None:
    data = find_dataset(Sources("shapes"))
    names = set()
    for engine in ("torch", "openvino"):
        backbone = tiny_backbone()
        backbone.engine = engine  # type: ignore[assignment]
        names.add(cache_path(data.fingerprint, backbone, None))
        extract_features(Noise(5), backbone, tmp_path / f"{engine}.h5")
    assert len(names) == 2
    plain, other = (
        load_regions(tmp_path / f"{e}.h5").regions(torch.arange(5)).float() for e in ("torch", "openvino")
    )
    torch.testing.assert_close(plain, other, rtol=2e-3, atol=1e-4)
    with pytest.raises(UserError, match="engine is openvino, not torch"):
        extract_features(Noise(5), tiny_backbone(), tmp_path / "openvino.h5")


@with_openvino
def test_a_model_that_openvino_computes_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("timm/test_resnet", "random")
    backbone.engine = "openvino"
    monkeypatch.setattr("fastzsl.features.openvino.LARGEST_ERROR", 0.0)
    with pytest.raises(UserError, match="--engine torch"):
        frozen(backbone)


def test_auto_is_openvino_where_it_is_installed_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTZSL_ENGINE")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert choose_engine("auto", "cpu") == "openvino"
    assert choose_engine("auto", "cuda") == choose_engine("auto", "cpu", torch.bfloat16) == "torch"
    assert choose_engine("torch", "cpu") == "torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine("auto", "cpu") == "torch"
    monkeypatch.setenv("FASTZSL_ENGINE", "openvino")
    assert choose_engine("auto", "cpu") == "openvino"


def test_wrong_engines_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, dtype in (("cuda", torch.float32), ("cpu", torch.bfloat16)):
        with pytest.raises(UserError, match="float32 on the CPU"):
            choose_engine("openvino", device, dtype)
    monkeypatch.setenv("FASTZSL_ENGINE", "fast")
    with pytest.raises(UserError, match="FASTZSL_ENGINE is fast"):
        choose_engine("auto", "cpu")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    backbone = tiny_backbone()
    backbone.engine = "openvino"
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[openvino\]'"):
        frozen(backbone)


def test_a_cached_file_of_an_engine_needs_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = find_dataset(Sources("shapes"))
    backbone = tiny_backbone()
    backbone.engine = "openvino"
    path = cache_path(data.fingerprint, backbone, None)
    monkeypatch.setattr("fastzsl.features.extraction.frozen", lambda backbone: backbone)
    extract_features(Noise(len(data.labels)), backbone, path, fingerprint=data.fingerprint)
    monkeypatch.undo()
    monkeypatch.setenv("FASTZSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert with_features(data, tiny_backbone(), engine="openvino").regions is not None
