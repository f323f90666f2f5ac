"""Arguments of both ops, validated once for every backend."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIMILARITIES = ("cosine", "dot")


def check_attention(regions: Tensor, queries: Tensor, scale: float) -> None:
    """Raise ValueError or TypeError naming the argument, what came and what was wanted."""
    _check_tensors(regions=regions, queries=queries)
    _check_rank("regions", regions, "(B, T, d)")
    _check_rank("queries", queries, "(C, d)")
    if regions.shape[1] == 0:
        raise ValueError("regions has T=0; attention needs at least one region")
    if regions.shape[2] == 0:
        raise ValueError("regions has d=0; wanted features of at least one number")
    if queries.shape[1] != regions.shape[2]:
        raise ValueError(f"queries has d={queries.shape[1]} but regions has d={regions.shape[2]}")
    if not _finite(scale):
        raise ValueError(f"scale is {scale}; wanted a finite number")


def check_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float,
) -> None:
    """Raise ValueError or TypeError naming the argument, what came and what was wanted."""
    if _fit(regions, queries, decoder_weight, decoder_bias, class_embeddings, similarity, scale):
        return
    check_attention(regions, queries, scale)
    _check_tensors(regions=regions, decoder_weight=decoder_weight, class_embeddings=class_embeddings)
    _check_rank("decoder_weight", decoder_weight, "(m, d)")
    _check_rank("class_embeddings", class_embeddings, "(C, m)")
    if decoder_weight.shape[1] != regions.shape[2]:
        raise ValueError(
            f"decoder_weight has d={decoder_weight.shape[1]} but regions has d={regions.shape[2]}"
        )
    if class_embeddings.shape[0] != queries.shape[0]:
        raise ValueError(
            f"class_embeddings has C={class_embeddings.shape[0]} but queries has C={queries.shape[0]}"
        )
    if class_embeddings.shape[1] != decoder_weight.shape[0]:
        raise ValueError(
            f"class_embeddings has m={class_embeddings.shape[1]} but decoder_weight has m={decoder_weight.shape[0]}"
        )
    if decoder_bias is not None:
        _check_tensors(regions=regions, decoder_bias=decoder_bias)
        if decoder_bias.shape != decoder_weight.shape[:1]:
            raise ValueError(
                f"decoder_bias has shape {tuple(decoder_bias.shape)}; wanted ({decoder_weight.shape[0]},)"
            )
    if similarity not in SIMILARITIES:
        raise ValueError(f'similarity is "{similarity}"; wanted "cosine" or "dot"')


def _fit(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float,
) -> bool:
    """Whether all is well, in the few microseconds that a small call can spare; if not, `check_scores` says why."""
    tensors = [regions, queries, decoder_weight, class_embeddings]
    if decoder_bias is not None:
        tensors.append(decoder_bias)
    if not all(isinstance(t, Tensor) for t in tensors):
        return False
    dtype, device = regions.dtype, regions.device
    if not dtype.is_floating_point or any(t.dtype != dtype or t.device != device for t in tensors):
        return False
    if regions.ndim != 3 or queries.ndim != 2 or decoder_weight.ndim != 2 or class_embeddings.ndim != 2:
        return False
    (_, T, d), (C, m) = regions.shape, class_embeddings.shape
    return (
        T > 0
        and d > 0
        and queries.shape == (C, d)
        and decoder_weight.shape == (m, d)
        and (decoder_bias is None or decoder_bias.shape == (m,))
        and similarity in SIMILARITIES
        and _finite(scale)
    )


def _finite(number: float) -> bool:
    # Not math.isfinite: torch.compile cannot trace it where the number varies.
    return -math.inf < number < math.inf


def _check_tensors(**tensors: Tensor) -> None:
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; wanted a tensor")
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name} is {tensor.dtype}; wanted a floating dtype")
        if tensor.dtype != first.dtype:
            raise TypeError(f"{name} is {tensor.dtype} but {first_name} is {first.dtype}; wanted one dtype")
        if tensor.device != first.device:
            raise ValueError(f"{name} is on {tensor.device} but {first_name} is on {first.device}")


def _check_rank(name: str, tensor: Tensor, shape: str) -> None:
    rank = shape.count(",") + 1
    if tensor.ndim != rank:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; wanted {rank} dimensions {shape}")


def cast_for_autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Under `torch.autocast`, cast to its dtype as a matrix product would; float64 is left alone."""
    first = tensors[0]
    device = first.device.type if isinstance(first, Tensor) else "cpu"
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64 else t
        for t in tensors
    )
