"""The launch path of a GPU, autotuner included, up to the launch itself: a stand-in driver claims a card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

from fastzsl.kernels import gradients, launch, offline
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

TARGET = "sm_90"
COMPILED: list[Any] = []
TRIED: list[Any] = []


class _Driver:
    """What compiling asks of a driver; tensors stay on the CPU and nothing is launched."""

    def get_current_target(self) -> Any:
        return offline.GPU_TARGETS[TARGET]

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture(autouse=True)
def _card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        assert len(grid(kwargs) if callable(grid) else grid) == 1
        compiled = run(self, *args, grid=grid, warmup=True, **kwargs)
        COMPILED.append((self.__name__, compiled))
        return compiled

    def bench(self: Autotuner, *args: Any, config: Any, **kwargs: Any) -> list[float]:
        TRIED.append(config)
        return [float(len(TRIED))]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(Autotuner, "_bench", bench)
    monkeypatch.setattr(driver, "_active", _Driver())
    COMPILED.clear()
    TRIED.clear()
    yield
    launch._tuners.clear()


def _run(T: int, dtype: torch.dtype, B: int = 3, C: int = 20, d: int = 64, m: int = 12) -> set[str]:
    regions, queries = torch.randn(B, T, d).to(dtype), torch.randn(C, d).to(dtype)
    weight, embeddings = torch.randn(m, d).to(dtype), torch.randn(C, m).to(dtype)
    rest, needs = torch.randn(B, C).to(dtype), [True] * 5
    for save in (True, False):
        launch.prototype_scores(regions, queries, queries, torch.randn(C).to(dtype), 1.0, save)
        launch.attend(regions, queries, regions, None, 1.0, "attend", save)
        values = regions @ weight.t()
        _, attention = launch.attend(regions, queries, values, embeddings, 1.0, "cosine", save)
    attention = torch.randn(B, C, T).to(dtype)
    values3 = (weight, None, embeddings, attention)
    gradients.prototype_gradients(rest, regions, queries, *values3, attention, 1.0, needs)
    gradients.projected_gradients(rest, regions, queries, *values3, values, "cosine", 1.0, needs)
    gradients.attention_gradients(
        torch.randn(B, C, d).to(dtype), None, regions, queries, attention, 1.0, needs
    )
    return {name for name, _ in COMPILED}


@pytest.mark.slow
@pytest.mark.parametrize(("T", "dtype"), [(49, torch.bfloat16), (196, torch.float16), (49, torch.float32)])
def test_every_kernel_compiles_with_the_arguments_it_is_launched_with(T: int, dtype: torch.dtype) -> None:
    forward = {"prototype_packed", "attend_one_tile"} if T == 49 else {"prototype_tiled", "attend_tiled"}
    assert _run(T, dtype) == forward | {"scores_rows", "softmax_rows"}
    for name, compiled in COMPILED:
        matrix = dtype != torch.float32 and not name.endswith("_rows")
        assert ("wgmma" in compiled.asm["ptx"]) == matrix, name
    if dtype != torch.float32:
        assert len(TRIED) > 3, "the autotuner had nothing to choose from"


@pytest.mark.slow
@pytest.mark.parametrize("T", [1, 129])
def test_sizes_of_one_compile_too(T: int) -> None:
    # Triton turns an argument of 1 into a constant, which has not all that a variable has.
    assert len(_run(T, torch.bfloat16, B=1, C=1, d=1, m=1)) == 4


def test_tf32_follows_torch_backends() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed, wanted in ((False, "ieee"), (True, "tf32")):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert launch.precision(torch.float32) == wanted
            assert launch.precision(torch.bfloat16) == "ieee"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_regions_with_crooked_rows_are_copied_once_and_straight_ones_never() -> None:
    straight = torch.randn(2, 49, 64).half()
    assert launch.readable(straight) is straight
    by_map = torch.randn(2, 64, 56).half().transpose(1, 2)  # 56 elements: every row starts on 16 bytes
    assert launch.readable(by_map) is by_map
    crooked = torch.randn(2, 64, 49).half().transpose(1, 2)
    assert launch.readable(crooked).is_contiguous()
