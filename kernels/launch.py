"""Start the kernels: outputs, grids, tile choice and the large matrix products of the backward pass.

Every function takes tensors of one device and one dtype (float32, float16, bfloat16), already validated,
regions with any strides. Shapes are in the letters of the ops: B images, T regions, C classes, d features, m
class-embedding entries.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import configs
from .attend import attend_one_tile, attend_tiled
from .prototype import prototype_packed, prototype_tiled

INTERPRETED = bool(triton.knobs.runtime.interpret)
_ELEMENT = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Every output and scratch tensor comes from here, so that tests can poison what a kernel must write."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current GPU, which need not be the tensors' own."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def target_of(device: torch.device) -> str:
    """The name in configs.TARGETS whose tiles suit this device."""
    if device.type != "cuda":
        return "sm_90"  # the interpreter runs the tiles of the largest card
    if torch.version.hip:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0]
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def precision(dtype: torch.dtype) -> str:
    """TF32 for float32 products only where torch.backends allows it for matmul."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def _choices(name: str, regions: Tensor) -> list[configs.Config]:
    exact = regions.dtype == torch.float32 and precision(regions.dtype) == "ieee" and not INTERPRETED
    return configs.for_kernel(
        name, target_of(regions.device), regions.shape[1], regions.element_size(), exact
    )


# One autotuner for each list of tiles; the lists are few (targets x numbers of regions x element sizes).
_tuners: dict[tuple[Any, ...], Any] = {}


def _tuned(kernel: Any, choices: list[configs.Config]) -> Any:
    key = (kernel.__name__, *((c.warps, c.stages, *sorted(c.blocks.items())) for c in choices))
    if key not in _tuners:
        tiles = [triton.Config(c.blocks, num_warps=c.warps, num_stages=c.stages) for c in choices]
        _tuners[key] = triton.autotune(tiles, key=["C", "D", "SAVE", "EPILOGUE"], cache_results=True)(kernel)
    return _tuners[key]


def _launch(kernel: Any, grid: Any, regions: Tensor, arguments: dict[str, Any]) -> None:
    """Run a forward kernel: tile tuned on a GPU, the first of configs.TABLE in the interpreter."""
    element = tl.float32 if INTERPRETED and regions.dtype == torch.bfloat16 else _ELEMENT[regions.dtype]
    arguments = dict(arguments, REGIONS=regions.shape[1], PRECISION=precision(regions.dtype), COMPUTE=element)
    choices = _choices(kernel.__name__, regions)
    if arguments["B"] == 0 or arguments["C"] == 0:
        return  # nothing to write, and no driver launches an empty grid
    with on_device(regions):
        if INTERPRETED:
            kernel[grid](**arguments, **choices[0].blocks)
        else:
            _tuned(kernel, choices)[grid](**arguments)


def _most(name: str, regions: Tensor) -> tuple[int, int]:
    """(BLOCK_C, tiles of regions), the most that any choice for kernel `name` has: what scratch must hold."""
    choices = _choices(name, regions)
    return (
        max(c.blocks["BLOCK_C"] for c in choices),
        max(triton.cdiv(regions.shape[1], c.blocks["BLOCK_T"]) for c in choices),
    )


def readable(regions: Tensor) -> Tensor:
    """regions, copied to (B, T, d) order where its strides would make the kernels slow or wrong.

    Slow: rows that do not start on 16-byte boundaries. A flattened 7 x 7 map has rows of 49 elements, every
    load would be one element wide, and the kernels read X once for each class block; one copy costs less.
    Wrong: offsets within the images of one program are 32 bits wide.
    """
    quantum = 16 // regions.element_size()
    crooked = any(stride % quantum for stride in regions.stride() if stride != 1)
    reach = [configs.MOST_IMAGES, *regions.shape[1:]]
    wide = sum(n * stride for n, stride in zip(reach, regions.stride())) >= 2**31
    return regions.contiguous() if wide or (crooked and not INTERPRETED) else regions


def prototype_scores(
    regions: Tensor, queries: Tensor, prototypes: Tensor, offsets: Tensor, scale: float, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, C), and with save the attention and u_bct = p_c . x_bt + q_c, each (B, C, T); else empty.

    regions (B, T, d), queries and prototypes (C, d), offsets (C,).
    """
    regions, queries, prototypes = readable(regions), queries.contiguous(), prototypes.contiguous()
    (B, T, D), C = regions.shape, queries.shape[0]
    scores = empty((B, C), regions)
    attention = empty((B, C, T) if save else (0,), regions)
    values = empty((B, C, T) if save else (0,), regions)
    arguments: dict[str, Any] = {
        "regions": regions, "queries": queries, "prototypes": prototypes, "offsets": offsets.contiguous(),
        "scores": scores, "attention": attention, "values": values, "B": B, "C": C, "D": D, "SAVE": save,
        "stride_xb": regions.stride(0), "stride_xt": regions.stride(1), "stride_xd": regions.stride(2),
        "log2_scale": scale * math.log2(math.e),
    }  # fmt: skip
    if configs.one_tile(T):
        _launch(
            prototype_packed,
            lambda meta: (triton.cdiv(B, meta["IMAGES"]) * triton.cdiv(C, meta["BLOCK_C"]),),
            regions, arguments,
        )  # fmt: skip
    else:
        # Class blocks of any size together hold fewer than C + BLOCK_C rows.
        block_c, tiles = _most("prototype_tiled", regions)
        shape = (B * tiles * (C + block_c),) if save else (0,)
        arguments["peaks"] = empty(shape, regions, torch.float32)
        _launch(prototype_tiled, lambda meta: (B * triton.cdiv(C, meta["BLOCK_C"]),), regions, arguments)
    return scores, attention, values


def attend(
    regions: Tensor,
    queries: Tensor,
    mixed: Tensor,
    embeddings: Tensor | None,
    scale: float,
    epilogue: str,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """The mixture (B, C, d) for epilogue "attend", else the scores (B, C); attention (B, C, T) with save.

    regions (B, T, d), queries (C, d); mixed (B, T, d or m), the rows that are mixed; embeddings (C, m) for
    the epilogues "dot" and "cosine".
    """
    same = mixed is regions
    regions, queries = readable(regions), queries.contiguous()
    mixed = regions if same else mixed
    (B, T, D), C, DV = regions.shape, queries.shape[0], mixed.shape[2]
    out = empty((B, C, DV) if epilogue == "attend" else (B, C), regions)
    arguments: dict[str, Any] = {
        "regions": regions, "queries": queries, "mixed": mixed, "out": out,
        "embeddings": queries if embeddings is None else embeddings.contiguous(),
        "B": B, "C": C, "D": D, "DV": DV, "SAVE": save, "EPILOGUE": epilogue,
        "stride_xb": regions.stride(0), "stride_xt": regions.stride(1), "stride_xd": regions.stride(2),
        "stride_yb": mixed.stride(0), "stride_yt": mixed.stride(1), "stride_yd": mixed.stride(2),
        "log2_scale": scale * math.log2(math.e),
    }  # fmt: skip
    if configs.one_tile(T):
        attention = empty((B, C, T) if save else (0,), regions)
        _launch(
            attend_one_tile, lambda meta: (B * triton.cdiv(C, meta["BLOCK_C"]),),
            regions, dict(arguments, attention=attention),
        )  # fmt: skip
        return out, attention
    block_c, tiles = _most("attend_tiled", regions)
    programs = min(B * triton.cdiv(C, 16), 2 * _processors(regions.device))
    parked = empty((B, C, T) if save else (programs, block_c, T), regions)
    peaks = empty((programs, tiles, block_c), regions, torch.float32)
    _launch(
        attend_tiled, lambda meta: (min(programs, B * triton.cdiv(C, meta["BLOCK_C"])),),
        regions, dict(arguments, attention=parked, peaks=peaks),
    )  # fmt: skip
    return out, parked if save else empty((0,), regions)


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
