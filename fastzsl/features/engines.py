"""Engines that compute the features of a backbone that is not trained: PyTorch, or OpenVINO if it is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastzsl.errors import UserError
from fastzsl.features.convolutions import OneDnnConvolutions
from fastzsl.features.folding import folded

Engine = Literal["auto", "torch", "openvino"]
FrozenMaps = Callable[[Tensor], Tensor]
"""uint8 images (B, 3, H, W) from `preprocess` -> feature maps (B, d, h, w), without gradients."""


def choose_engine(
    engine: Engine, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Literal["torch", "openvino"]:
    """The engine that "auto" means: OpenVINO on the CPU in float32 if it is installed, otherwise PyTorch.

    The environment variable FASTZSL_ENGINE gives "auto" another meaning.

    Args:
        engine: the one that was asked for.
        device: where the backbone works.
        dtype: of the backbone's weights.

    Raises:
        UserError: OpenVINO was asked for on another device or in another type, or FASTZSL_ENGINE is no engine.
    """
    if engine == "auto":
        engine = _default()
    fits = torch.device(device).type == "cpu" and dtype == torch.float32
    if engine == "openvino" and not fits:
        raise UserError(
            f"--engine openvino computes in float32 on the CPU, not in {str(dtype).removeprefix('torch.')} on "
            f"{torch.device(device).type}; use --engine torch"
        )
    if engine == "auto":
        return "openvino" if fits and importlib.util.find_spec("openvino") else "torch"
    return engine


def _default() -> Engine:
    wanted = os.environ.get("FASTZSL_ENGINE", "auto")
    if wanted not in get_args(Engine):
        raise UserError(f"FASTZSL_ENGINE is {wanted}; wanted {', '.join(get_args(Engine))}")
    return wanted  # type: ignore[return-value]


def frozen(backbone: Any) -> FrozenMaps:
    """The function that computes feature maps with the backbone's engine; threads may call it at the same time.

    Args:
        backbone: a `fastzsl.features.backbones.Backbone` on its device.

    Raises:
        UserError: the engine is not installed or cannot run the backbone.
    """
    if backbone.engine != "openvino":
        maps = folded(backbone)

        def by_pytorch(images: Tensor) -> Tensor:
            with OneDnnConvolutions():
                found: Tensor = maps(images)
            return found

        return by_pytorch
    from fastzsl.features.openvino import OpenVinoMaps

    return OpenVinoMaps(backbone)
