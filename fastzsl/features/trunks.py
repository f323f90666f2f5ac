"""Image classifiers of torchvision and timm without their heads, each as images -> feature maps (B, d, h, w)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastzsl.errors import UserError, first_line

Maps = Callable[[Any, Tensor], Tensor]
"""(trunk, scaled images (B, 3, H, W)) -> feature maps. The trunk is an argument and not part of a closure, so that a
copy of a backbone computes with its own weights."""


class Preprocessing(NamedTuple):
    """The preprocessing with which a classifier's published weights were trained.

    Attributes:
        image_size: side of its square images, in pixels.
        mean, std: of the three channels, for numbers in [0, 1].
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


IMAGENET = Preprocessing()


def run(trunk: nn.Module, images: Tensor) -> Tensor:
    """A trunk whose output is a map."""
    return trunk(images)  # type: ignore[no-any-return]


def torchvision_trunk(name: str, model: Any) -> tuple[nn.Module, Maps]:
    """The trunk of a torchvision classifier, and the function that computes feature maps with it.

    Raises:
        UserError: a family without a known trunk.
    """
    family = type(model).__module__.rpartition(".")[2]
    if family == "vision_transformer":
        model.heads = nn.Identity()
        return model, _torchvision_vit
    if family in ("googlenet", "inception"):
        for head in ("aux1", "aux2", "AuxLogits", "fc"):
            if hasattr(model, head):
                setattr(model, head, None)
        return model, _torchvision_inception
    if family == "swin_transformer":
        return nn.Sequential(model.features, model.norm, model.permute), run
    if family == "densenet":
        return nn.Sequential(model.features, nn.ReLU()), run
    if family == "maxvit":
        return nn.Sequential(model.stem, *model.blocks), run
    if hasattr(model, "features"):
        return model.features, run
    if family in _STAGES:
        return nn.Sequential(*(getattr(model, stage) for stage in _STAGES[family])), run
    raise UserError(f'torchvision\'s "{name}" has no trunk that this program knows; use timm/NAME')


_STAGES = {
    "resnet": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "regnet": ("stem", "trunk_output"),
    "mnasnet": ("layers",),
    "shufflenetv2": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
}
"""Names of the layers before pooling, for families that do not call them `features`."""


def _torchvision_vit(model: Any, images: Tensor) -> Tensor:
    patches: Tensor = model.conv_proj(images)
    tokens = patches.flatten(2).transpose(1, 2)
    encoded: Tensor = model.encoder(torch.cat([model.class_token.expand(len(tokens), -1, -1), tokens], 1))
    return encoded[:, 1:].transpose(1, 2).unflatten(2, patches.shape[2:])


def _torchvision_inception(model: Any, images: Tensor) -> Tensor:
    """The layers before the pooling, in the model's order."""
    maps: Tensor = model._transform_input(images)
    for name, layer in model.named_children():
        if name == "avgpool":
            break
        maps = maps if layer is None else layer(maps)
    return maps


def timm_maps(name: str, model: Any, image_size: int) -> Maps:
    """The function that computes a timm model's last features, after the last norm.

    The features may be a map with channels first or last, or tokens. Class and register tokens come first and are left
    out; the other tokens must form a square. If a model returns several tensors, or only its class token, its last
    intermediate map is used.

    Raises:
        UserError: features that do not form a map.
    """
    model.eval()  # a probe must not move batch statistics
    probe = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad():
            found = model.forward_features(probe)
            if not isinstance(found, Tensor) or found.ndim not in (3, 4) or found.shape[1] == 1:
                _last_intermediate(model, probe)  # raises where a model has none
                return _last_intermediate
    except Exception as error:  # a model may raise any type
        raise UserError(
            f'backbone "{name}" gives no feature map of {image_size} × {image_size} pixels ({first_line(error)})'
        ) from error
    if found.ndim == 4:
        return _channels_first if found.shape[2] == found.shape[3] else _channels_last
    count, extra = found.shape[1], getattr(model, "num_prefix_tokens", None)
    if extra is None:  # older models have no such attribute
        extra = 0 if math.isqrt(count) ** 2 == count else 1
    if found.shape[2] != model.num_features or math.isqrt(count - extra) ** 2 != count - extra:
        raise UserError(
            f'backbone "{name}" gives {count} tokens of {found.shape[2]} numbers for {image_size} × {image_size} '
            f"pixels; without {extra} extra tokens they make no square map"
        )
    return partial(_tokens, extra=int(extra))


def _channels_first(model: Any, images: Tensor) -> Tensor:
    return model.forward_features(images)  # type: ignore[no-any-return]


def _channels_last(model: Any, images: Tensor) -> Tensor:
    return model.forward_features(images).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def _last_intermediate(model: Any, images: Tensor) -> Tensor:
    found = model.forward_intermediates(images, indices=1, intermediates_only=True, output_fmt="NCHW")
    return found[-1]  # type: ignore[no-any-return]


def _tokens(model: Any, images: Tensor, extra: int) -> Tensor:
    """(B, T, d) patch tokens as a (B, d, √T, √T) map."""
    tokens: Tensor = model.forward_features(images)[:, extra:]
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))
