"""Fold batch normalisation into the convolution before it, for a backbone that is not trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

LARGEST_DIFFERENCE = 1e-5
"""Relative Frobenius norm of the difference of the maps. If the folded copy differs by more, it is not used."""


@torch.no_grad()
def folded(backbone: Any) -> Any:
    """A copy that computes the same maps with fewer passes over memory, or the backbone itself if there is none.

    In evaluation mode batch normalisation multiplies and shifts each channel by constants. If it reads the output of a
    convolution and nothing else does, the constants become part of the convolution's weights.

    Args:
        backbone: a `fastzsl.features.backbones.Backbone`; it is not changed.
    """
    if next(backbone.trunk.parameters()).dtype != torch.float32:
        return backbone  # folded weights would be rounded again
    copied = copy.deepcopy(backbone).eval()
    place = next(copied.trunk.parameters()).device
    side = copied.image_size
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, generator=generator).to(place)
    pairs, wanted = _pairs(copied, image)
    if not pairs:
        return backbone
    names = {module: name for name, module in copied.named_modules()}
    for convolution, normalisation in pairs:
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, normalisation.running_mean, normalisation.running_var,
            normalisation.eps, normalisation.weight, normalisation.bias,
        )  # fmt: skip
        parent, _, own = names[normalisation].rpartition(".")
        activation = getattr(normalisation, "act", None)  # timm's normalisation includes the activation
        setattr(copied.get_submodule(parent), own, nn.Identity() if activation is None else activation)
    copied.to(memory_format=torch.channels_last)
    difference = (copied(image) - wanted).norm() / wanted.norm().clamp_min(1e-30)
    return copied if difference <= LARGEST_DIFFERENCE else backbone


def _pairs(backbone: nn.Module, image: Tensor) -> tuple[list[tuple[Any, Any]], Tensor]:
    """Convolutions with the batch normalisation that reads their output, each used once; and the maps of `image`."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors are held, so that no address is used twice
    uses: dict[nn.Module, int] = {}
    found: list[tuple[nn.Module, nn.Module]] = []

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        uses[module] = uses.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], module))

    handles = [
        module.register_forward_hook(after)
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d) or _foldable(module)
    ]
    try:
        maps = backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if all(uses[module] == 1 for module in pair)], maps


def _foldable(module: nn.Module) -> bool:
    """Batch normalisation with stored statistics: PyTorch's, or timm's, which has an activation behind it."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return type(module) is nn.BatchNorm2d or hasattr(module, "act")
