"""Convolutions by oneDNN on the CPU, also where PyTorch's rules choose its own, slower ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OneDnnConvolutions(TorchFunctionMode):
    """In this context convolutions of float32 images on the CPU are oneDNN's.

    On one thread, as features are extracted, PyTorch unfolds the input of a convolution of 1 × 1 or 3 × 3 pixels and
    multiplies matrices, which takes about twice as long. The context holds for the calling thread.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or not _serves(input, weight):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    found: Tensor = torch.mkldnn_convolution(  # type: ignore[attr-defined]
        input, weight, bias, _pair(padding), _pair(stride), _pair(dilation), groups
    )
    return found


def _serves(input: Tensor, weight: Tensor) -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and input.ndim == 4
        and len(input) > 0
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (input, weight))
        and not torch.is_autocast_enabled("cpu")
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
