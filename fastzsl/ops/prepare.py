"""Stored feature maps to the regions that the products read, in one pass over memory."""

from __future__ import annotations

import importlib
import math

import torch
from torch import Tensor

from fastzsl.ops import eager
from fastzsl.ops.dispatch import Call, UnservedCall, backends, kernel_module, known_backend
from fastzsl.ops.transforms import is_plain, is_transformed

OP = "prepare_regions"


def prepare_regions(
    stored: Tensor,
    *,
    images: Tensor | None = None,
    kept: Tensor | None = None,
    power: float = 1.0,
    factor: float | Tensor = 1.0,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Regions gathered from stored features, widened, compressed and scaled: factor · sign(x) |x|^power.

    Training reads float16 maps, drops regions and channels, and compresses what is left. In plain PyTorch each of these
    steps is a pass over memory, which together take longer than a small model's scores. In plain PyTorch::

        x = stored[images][arange(B)[:, None], kept].to(dtype)
        regions = factor * x.sign() * x.abs() ** power

    Args:
        stored: (N, S, d), any strides and any floating dtype; a conv map (N, d, h, w) is `map.flatten(2).mT`.
        images: (B,) int64 images of `stored`; None takes all N in order.
        kept: (B, T) int64 regions of each image; None takes all S in order.
        power: above 0; 1 changes nothing.
        factor: number, tensor of one number, or one for every image and channel (B, 1, d).
        dtype: of the result; under `torch.autocast`, float32 becomes autocast's dtype, in which the ops compute.
        backend: "auto", "eager", "native" or "triton"; see `backends()`. Every backend uses the eager formulas if
            `stored` or `factor` needs a gradient, for a float64 result, and under a compiler or a transform. There
            |x|^power has the slope of |x| + 1e-6, because that of |x| is infinite at 0.

    Returns:
        regions (B, T, d); the kernels write them contiguously.

    Raises:
        ValueError, TypeError: shapes or dtypes that do not fit, naming the argument.
        IndexError: an index outside `stored`; on a GPU indices are not checked.
        RuntimeError: a backend named explicitly cannot run the call; every reason is listed.

    >>> prepare_regions(torch.zeros(2, 49, 64).half(), kept=torch.tensor([[0, 7], [3, 1]]), power=0.5).shape
    torch.Size([2, 2, 64])
    """
    _check(stored, images, kept, power, factor)
    device = stored.device.type
    if dtype == torch.float32 and device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    arguments = (stored, images, kept, float(power), factor, dtype)
    name = _backend(backend, stored, images, kept, factor, dtype)
    if name == "eager":
        _check_indices(stored, images, kept)
        return eager.prepare_regions(*arguments)
    prepared: Tensor = importlib.import_module(f"fastzsl.ops.{name}_prepare").prepare_regions(*arguments)
    return prepared


def _backend(
    backend: str,
    stored: Tensor,
    images: Tensor | None,
    kept: Tensor | None,
    factor: float | Tensor,
    dtype: torch.dtype,
) -> str:
    """ "eager" or the kernel backend that runs the call."""
    backend = known_backend(backend)
    tensors = (stored, images, kept, factor if isinstance(factor, Tensor) else None)
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    call = Call(OP, stored.device, stored.dtype, stored.shape[0], stored.shape[1], 0, stored.shape[2])
    by_formulas = needs_grad or dtype.itemsize > 4 or is_transformed(*tensors) or not is_plain(tensors)
    if backend == "eager" or (backend == "auto" and by_formulas):
        return "eager"
    for name in ("native", "triton") if backend == "auto" else (backend,):
        found = backends()[name]
        reasons = list(found.reasons) if not found else kernel_module(name).refuses(call)
        if not reasons and (backend != "auto" or not kernel_module(name).slower(call)):
            return "eager" if by_formulas else name
        if backend != "auto":
            raise UnservedCall(f'backend "{backend}" cannot serve {OP}: ' + "; ".join(reasons))
    return "eager"


def _check(
    stored: Tensor, images: Tensor | None, kept: Tensor | None, power: float, factor: float | Tensor
) -> None:
    if stored.ndim != 3:
        raise ValueError(f"stored has shape {tuple(stored.shape)}; wanted 3 dimensions (N, S, d)")
    if not stored.dtype.is_floating_point:
        raise TypeError(f"stored is {stored.dtype}; wanted a floating dtype")
    B = stored.shape[0] if images is None else images.shape[0]
    for name, indices, ndim, shape in (("images", images, 1, "(B,)"), ("kept", kept, 2, "(B, T)")):
        if indices is None:
            continue
        if indices.dtype != torch.int64:
            raise TypeError(f"{name} is {indices.dtype}; wanted int64")
        if indices.ndim != ndim or indices.device != stored.device:
            raise ValueError(
                f"{name} has shape {tuple(indices.shape)} on {indices.device}; wanted {shape} on {stored.device}"
            )
    if kept is not None and len(kept) != B:
        raise ValueError(f"kept has shape {tuple(kept.shape)}; wanted one row for each of {B} images")
    if not 0 < power < math.inf:
        raise ValueError(f"power is {power}; wanted a number above 0")
    if isinstance(factor, Tensor) and factor.numel() != 1 and factor.shape != (B, 1, stored.shape[2]):
        raise ValueError(
            f"factor has shape {tuple(factor.shape)}; wanted one number or {(B, 1, stored.shape[2])}"
        )


def _check_indices(stored: Tensor, images: Tensor | None, kept: Tensor | None) -> None:
    """On the CPU; PyTorch would take a negative index from the end, and the kernels do not."""
    if torch.compiler.is_compiling() or not stored.is_cpu:
        return
    for name, indices, size in (("images", images, stored.shape[0]), ("kept", kept, stored.shape[1])):
        if indices is not None and indices.numel() and type(indices) is Tensor:
            low, high = indices.aminmax()
            if low < 0 or high >= size:
                raise IndexError(f"{name} has an index outside 0..{size - 1}")
