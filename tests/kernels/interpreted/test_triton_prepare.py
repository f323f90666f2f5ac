"""The Triton pass over stored features against float64, in the interpreter."""

from __future__ import annotations

import pytest
import torch
from fastzsl.kernels import launch
from triton_checks import FENCE, fenced

from fastzsl.ops import prepare_regions, reference


@pytest.mark.parametrize("power", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("layout", ["btd", "bdt"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values(power: float, layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stored = (
        fenced(torch.randn(4, 70, 19).to(dtype)).mT
        if layout == "bdt"
        else fenced(torch.randn(4, 19, 70).to(dtype))
    )
    stored[1, 3] = 0.0
    made: list[torch.Tensor] = []

    def poisoned(shape: tuple[int, ...], like: torch.Tensor, kind: torch.dtype | None = None) -> torch.Tensor:
        made.append(fenced(torch.full(shape, float("nan"), dtype=kind or like.dtype)))
        return made[-1]

    monkeypatch.setattr(launch, "empty", poisoned)
    for images, kept, factor in (
        (None, None, 1.5),
        (torch.tensor([3, 1, 1]), torch.rand(3, 19).topk(17).indices, torch.rand(3, 1, 70)),
    ):
        settings = {"images": images, "kept": kept, "power": power}
        exact = factor if isinstance(factor, float) else factor.double()
        truth = reference.prepare_regions(stored.double(), factor=exact, **settings)  # type: ignore[arg-type]
        found = prepare_regions(stored, factor=factor, backend="triton", **settings)  # type: ignore[arg-type]
        torch.testing.assert_close(found.double(), truth, rtol=2e-6, atol=1e-6)
        memory = made[-1].as_strided((made[-1].numel() + 2 * FENCE,), (1,), 0)
        outside = torch.cat([memory[:FENCE], memory[-FENCE:]])
        assert outside.isnan().all(), "a store outside the result"
