"""The native pass over stored features, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from fastzsl.ops import prepare_regions, reference


def every_half() -> torch.Tensor:
    """All float16 numbers but NaN, 63,490 of them."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    return numbers[~numbers.isnan()]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_every_float16_number(isa: str, power: float) -> None:
    numbers = every_half().reshape(1, 2, -1)
    for stored in (numbers, numbers.mT.contiguous().mT):  # both ways of reading
        found = prepare_regions(stored, power=power, backend="native")
        truth = reference.prepare_regions(stored.double(), power=power).float()
        assert torch.equal(found, truth)
        assert torch.equal(found.signbit(), stored.signbit())


def test_nan_stays_nan(isa: str) -> None:
    stored = torch.tensor([[[float("nan"), 1.0] * 20]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for power in (0.5, 1.0):
            found = prepare_regions(stored.to(dtype), power=power, backend="native")
            assert torch.equal(found.isnan(), stored.isnan())


@pytest.mark.parametrize("flush", [False, True])
def test_tiny_halves_are_kept_when_the_processor_flushes_them(isa: str, flush: bool) -> None:
    stored = torch.tensor([[[2.0**-24, -(2.0**-15)] * 8]], dtype=torch.float16)
    before = torch.tensor([2.0**-24, -(2.0**-15)] * 8)
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        found = prepare_regions(stored, backend="native")
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found[0, 0], before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_and_any_strides(isa: str, threads: int, seed: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for N, S, d in ((1, 49, 1100), (3, 7, 65), (20, 9, 130)):
            memory = torch.randn(N, S + 2, 2 * d).half()
            kept = torch.rand(N, S).topk(max(1, S // 2)).indices
            factor = torch.rand(N, 1, d)
            for stored in (
                memory[:, 1 : S + 1, :d],
                memory[:, 1 : S + 1, ::2],
                memory[:, 1 : S + 1, :d].mT.contiguous().mT,
            ):
                truth = reference.prepare_regions(
                    stored.double(), kept=kept, power=0.5, factor=factor.double()
                )
                found = prepare_regions(stored, kept=kept, power=0.5, factor=factor, backend="native")
                torch.testing.assert_close(found.double(), truth, rtol=2e-7, atol=0)
    finally:
        torch.set_num_threads(before)
