"""Tile sizes per kernel and target: plain values, no Triton needed.

Few on purpose: Triton tries them all once per shape (C, D) and keeps the answer on disk. Numbers are for
16-bit elements.

The two products of the prototype kernel hold 2 x BLOCK_C x BLOCK_N accumulators in registers and read
2 BLOCK_C + BLOCK_N rows for each step: 64 x 256 and 128 x 128 give the most operations per byte that 8 warps
can hold. None of these was chosen by a measurement yet; `bench/gpu.py --search` tries a wider grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

# Bytes of shared memory a program may ask for. Smaller cards of the same family (sm_86, sm_89, sm_120) have
# 99 KiB: every list below keeps one entry that fits them.
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
SMALL_SHARED_LIMIT = 99 * 1024

MOST_IMAGES = 8  # that one program of the packed kernel takes
ONE_TILE = 128  # regions beyond this take the tiled kernels
GROUP = 8  # image blocks that sweep the classes together, see tiles.block_of


@dataclass(frozen=True)
class Config:
    """One choice of tile: keyword arguments of the kernel, and how many warps and pipeline stages it gets."""

    blocks: dict[str, int] = field(hash=False)
    warps: int
    stages: int


def _c(warps: int, stages: int, **blocks: int) -> Config:
    return Config(blocks, warps, stages)


_PACKED = {
    "sm_80": [_c(8, 3, BLOCK_C=64, BLOCK_N=128, BLOCK_D=64), _c(4, 3, BLOCK_C=64, BLOCK_N=64, BLOCK_D=64)],
    "sm_90": [
        _c(8, 3, BLOCK_C=64, BLOCK_N=256, BLOCK_D=64),
        _c(8, 3, BLOCK_C=128, BLOCK_N=128, BLOCK_D=64),
        _c(8, 3, BLOCK_C=64, BLOCK_N=128, BLOCK_D=64),
    ],
    "sm_100": [_c(8, 3, BLOCK_C=128, BLOCK_N=128, BLOCK_D=64), _c(8, 3, BLOCK_C=64, BLOCK_N=128, BLOCK_D=64)],
    "gfx942": [_c(8, 2, BLOCK_C=64, BLOCK_N=128, BLOCK_D=64), _c(4, 2, BLOCK_C=64, BLOCK_N=64, BLOCK_D=64)],
}
_TILED = {
    "sm_80": [_c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=32)],
    "sm_90": [_c(8, 3, BLOCK_C=128, BLOCK_T=64, BLOCK_D=64), _c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64)],
    "sm_100": [_c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64)],
    "gfx942": [_c(8, 2, BLOCK_C=128, BLOCK_T=64, BLOCK_D=64), _c(8, 2, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64)],
}
_ATTEND = {
    "sm_80": [_c(8, 3, BLOCK_C=128, BLOCK_D=64, BLOCK_V=64), _c(4, 3, BLOCK_C=64, BLOCK_D=64, BLOCK_V=64)],
    "sm_90": [_c(8, 3, BLOCK_C=128, BLOCK_D=64, BLOCK_V=64), _c(4, 3, BLOCK_C=64, BLOCK_D=64, BLOCK_V=64)],
    "sm_100": [_c(8, 3, BLOCK_C=128, BLOCK_D=64, BLOCK_V=64), _c(4, 3, BLOCK_C=64, BLOCK_D=64, BLOCK_V=64)],
    "gfx942": [_c(4, 2, BLOCK_C=64, BLOCK_D=64, BLOCK_V=64)],
}
_ATTEND_TILED = {
    "sm_80": [_c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64, BLOCK_V=64)],
    "sm_90": [_c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64, BLOCK_V=64)],
    "sm_100": [_c(8, 3, BLOCK_C=64, BLOCK_T=128, BLOCK_D=64, BLOCK_V=64)],
    "gfx942": [_c(4, 2, BLOCK_C=64, BLOCK_T=64, BLOCK_D=64, BLOCK_V=64)],
}
# What float32 halves, so that a tile takes the shared memory and the registers of a 16-bit one.
_HALVED = {
    "prototype_packed": ("BLOCK_D",),
    "prototype_tiled": ("BLOCK_D",),
    "attend_one_tile": ("BLOCK_D", "BLOCK_V"),
    "attend_tiled": ("BLOCK_D", "BLOCK_T"),
}
# float32 without TF32 has no tensor cores on NVIDIA; plain multiply-adds hold more registers: smaller tiles.
_EXACT = {
    "prototype_packed": _c(8, 3, BLOCK_C=64, BLOCK_N=128, BLOCK_D=32),
    "prototype_tiled": _c(8, 3, BLOCK_C=32, BLOCK_T=128, BLOCK_D=32),
    "attend_one_tile": _c(8, 3, BLOCK_C=64, BLOCK_D=32, BLOCK_V=32),
    "attend_tiled": _c(8, 3, BLOCK_C=32, BLOCK_T=64, BLOCK_D=16, BLOCK_V=32),
}
TABLE = {
    "prototype_packed": _PACKED,
    "prototype_tiled": _TILED,
    "attend_one_tile": _ATTEND,
    "attend_tiled": _ATTEND_TILED,
}


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and at least `least`."""
    return max(least, 1 << max(n - 1, 0).bit_length())


def one_tile(regions: int) -> bool:
    """Whether an image's regions go through the kernels that keep all of them in registers."""
    return regions <= ONE_TILE


def for_kernel(kernel: str, target: str, regions: int, itemsize: int, exact: bool = False) -> list[Config]:
    """The shipped configurations of `kernel` on `target` (a name of TARGETS), completed for T = regions.

    itemsize: bytes of an element. exact: float32 products without TF32.
    """
    plain = exact and itemsize > 2 and target.startswith("sm_")
    complete = []
    for config in [_EXACT[kernel]] if plain else TABLE[kernel][target]:
        blocks = dict(config.blocks)
        if blocks.get("BLOCK_N", regions) < regions:
            continue  # not one whole image fits
        if itemsize > 2 and not plain:
            for axis in _HALVED[kernel]:
                blocks[axis] //= 2
        if kernel == "prototype_packed":
            blocks["IMAGES"] = min(MOST_IMAGES, blocks["BLOCK_N"] // regions)
        elif kernel == "attend_one_tile":
            blocks["BLOCK_T"] = power_of_two(regions, 16)
        blocks["GROUP"] = GROUP
        complete.append(Config(blocks, config.warps, config.stages))
    return complete


def rows_for(regions: int) -> dict[str, int]:
    """Tile of the row kernels of backward.py: whole rows, about 2048 elements a program."""
    block = power_of_two(regions, 16)
    return {"BLOCK_R": max(1, 2048 // block), "BLOCK_T": block}
