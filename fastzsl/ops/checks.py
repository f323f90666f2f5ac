"""Arguments of both ops, validated once for every backend."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIMILARITIES = ("cosine", "dot")


def check_attention(regions: Tensor, queries: Tensor, scale: float | Tensor) -> None:
    """Raise ValueError or TypeError naming the argument, what was found and what was wanted."""
    _check_tensor("regions", regions, 3, "(B, T, d)", None)
    _check_tensor("queries", queries, 2, "(C, d)", regions)
    _, T, d = regions.shape
    if T == 0:
        raise ValueError("regions has T=0; attention needs at least one region")
    if d == 0:
        raise ValueError("regions has d=0; wanted features of at least one number")
    if queries.shape[1] != d:
        raise ValueError(f"queries has d={queries.shape[1]} but regions has d={d}")
    check_scale(scale)


def check_scale(scale: float | Tensor) -> None:
    """Raise ValueError unless it is a finite number or a tensor of one number."""
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(
                f"scale has shape {tuple(scale.shape)}; wanted a number or a tensor of one number"
            )
    elif not -math.inf < scale < math.inf:  # torch.compile cannot trace math.isfinite where the number varies
        raise ValueError(f"scale is {scale}; wanted a finite number")


def check_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float | Tensor,
) -> None:
    """Raise ValueError or TypeError naming the argument, what was found and what was wanted."""
    check_attention(regions, queries, scale)
    _check_tensor("decoder_weight", decoder_weight, 2, "(m, d)", regions)
    _check_tensor("class_embeddings", class_embeddings, 2, "(C, m)", regions)
    m, d = decoder_weight.shape
    if d != regions.shape[2]:
        raise ValueError(f"decoder_weight has d={d} but regions has d={regions.shape[2]}")
    if class_embeddings.shape[0] != queries.shape[0]:
        raise ValueError(
            f"class_embeddings has C={class_embeddings.shape[0]} but queries has C={queries.shape[0]}"
        )
    if class_embeddings.shape[1] != m:
        raise ValueError(f"class_embeddings has m={class_embeddings.shape[1]} but decoder_weight has m={m}")
    if decoder_bias is not None:
        _check_tensor("decoder_bias", decoder_bias, 1, f"({m},)", regions)
        if decoder_bias.shape[0] != m:
            raise ValueError(f"decoder_bias has shape {tuple(decoder_bias.shape)}; wanted ({m},)")
    if similarity not in SIMILARITIES:
        raise ValueError(f'similarity is "{similarity}"; wanted "cosine" or "dot"')


def _check_tensor(name: str, tensor: Tensor, ndim: int, shape: str, regions: Tensor | None) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; wanted a tensor")
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} is {tensor.dtype}; wanted a floating dtype")
    if regions is not None:
        if tensor.dtype != regions.dtype:
            raise TypeError(f"{name} is {tensor.dtype} but regions is {regions.dtype}; wanted one dtype")
        if tensor.device != regions.device:
            raise ValueError(f"{name} is on {tensor.device} but regions is on {regions.device}")
    if tensor.ndim != ndim:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; wanted {ndim} dimensions {shape}")


def cast_for_autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Under `torch.autocast`, cast to its dtype as a matrix product would; float64 is left alone."""
    first = tensors[0]
    device = first.device.type if isinstance(first, Tensor) else "cpu"
    if device not in ("cpu", "cuda") and not torch.amp.is_autocast_available(device):
        return tensors  # meta, for one
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64 else t
        for t in tensors
    )
