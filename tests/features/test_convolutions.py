"""Convolutions by oneDNN: the values of PyTorch's, for every way in which they are called."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastzsl.features import convolutions
from fastzsl.features.backbones import load_backbone
from fastzsl.features.convolutions import OneDnnConvolutions
from fastzsl.features.engines import frozen

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    found: list[torch.Size] = []
    own = torch.mkldnn_convolution

    def counted(images, weight, *rest):  # type: ignore[no-untyped-def]
        found.append(weight.shape)
        return own(images, weight, *rest)

    monkeypatch.setattr(torch, "mkldnn_convolution", counted)
    return found


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8, dilation=(2, 1)),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 4])
def test_layers_of_every_form(calls: list[torch.Size], seed: int, layer: nn.Conv2d, batch: int) -> None:
    images = torch.randn(batch, 8, 14, 15)
    for given in (images, images.contiguous(memory_format=torch.channels_last), images.mT):
        wanted = layer(given)
        with OneDnnConvolutions():
            torch.testing.assert_close(layer(given), wanted, rtol=1e-4, atol=1e-5)
    assert calls == [layer.weight.shape] * 3


def test_calls_by_keyword_and_those_that_stay_with_pytorch(calls: list[torch.Size], seed: int) -> None:
    images, weight = torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3)
    with OneDnnConvolutions():
        found = F.conv2d(images, weight=weight, stride=(2, 2), padding=1)
        assert len(calls) == 1
        same = F.conv2d(images, weight, padding="same")
        double = F.conv2d(images.double(), weight.double())
        one = F.conv2d(images[0], weight)
        none = F.conv2d(images[:0], weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.conv2d(images, weight).dtype == torch.bfloat16
    assert len(calls) == 1
    torch.testing.assert_close(found, F.conv2d(images, weight, stride=2, padding=1), rtol=1e-4, atol=1e-5)
    assert torch.equal(same, F.conv2d(images, weight, padding="same"))
    assert torch.equal(double, F.conv2d(images.double(), weight.double()))
    assert torch.equal(one, F.conv2d(images[0], weight))
    assert none.shape == (0, 4, 7, 7)


def test_a_backbone_takes_it_and_leaves_it(calls: list[torch.Size], seed: int) -> None:
    backbone = load_backbone("resnet18", "random", 64).eval()
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        wanted = backbone(images)
        found = frozen(backbone)(images)
    assert len(calls) == sum(isinstance(m, nn.Conv2d) for m in backbone.modules())
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    backbone(images)
    assert len(calls) == sum(isinstance(m, nn.Conv2d) for m in backbone.modules()), "the context is closed"


def test_without_onednn_pytorch_computes(
    calls: list[torch.Size], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions.torch.backends.mkldnn, "is_available", lambda: False)
    with OneDnnConvolutions():
        assert F.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 4
    assert not calls
