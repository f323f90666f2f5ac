"""`prepare_regions` is its float64 reference on every backend of this machine, and refuses what it cannot read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastzsl.ops import backends, prepare_regions, reference

BACKENDS = [name for name in ("eager", "native") if backends()[name]]


def stored_features(N: int, S: int, d: int, dtype: torch.dtype, turned: bool) -> Tensor:
    features = (torch.randn(N, d, S).mT if turned else torch.randn(N, S, d)).to(dtype)
    features[0, 0, 0] = 0.0
    return features


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("power", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values(backend: str, power: float, dtype: torch.dtype, seed: int) -> None:
    for turned in (False, True):
        for images, factor in ((None, 1.7), (torch.tensor([2, 0, 2, 4]), torch.rand(4, 1, 70))):
            stored = stored_features(5, 9, 70, dtype, turned)
            kept = torch.rand(5 if images is None else 4, 9).topk(5).indices if turned else None
            arguments = {"images": images, "kept": kept, "power": power}
            exact = factor if isinstance(factor, float) else factor.double()
            truth = reference.prepare_regions(stored.double(), factor=exact, **arguments)  # type: ignore[arg-type]
            found = prepare_regions(stored, factor=factor, backend=backend, **arguments)  # type: ignore[arg-type]
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), truth, rtol=5e-7, atol=1e-30)
            rounded = prepare_regions(
                stored,
                factor=factor,
                backend=backend,
                dtype=torch.bfloat16,
                **arguments,  # type: ignore[arg-type]
            )
            assert torch.equal(rounded, found.bfloat16())


def test_gradients_are_those_of_the_formula_and_finite_at_zero(seed: int) -> None:
    stored = torch.randn(3, 4, 6, dtype=torch.float64) + 0.0
    stored[0, 0] = 0.0
    stored.requires_grad_()
    factor = torch.rand(3, 1, 6, dtype=torch.float64, requires_grad=True)
    kept = torch.tensor([[0, 2], [1, 3], [3, 0]])
    prepared = prepare_regions(stored, kept=kept, power=0.5, factor=factor, dtype=torch.float64)
    upstream = torch.randn_like(prepared)
    found = torch.autograd.grad(prepared, (stored, factor), upstream)
    assert all(g.isfinite().all() for g in found)
    truth = reference.prepare_regions(stored, kept=kept, power=0.5, factor=factor)
    exact = torch.autograd.grad(truth, (stored, factor), upstream)
    far = stored.detach().abs() > 0.05
    torch.testing.assert_close(found[0][far], exact[0][far], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], exact[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_outside_is_refused(backend: str) -> None:
    stored = torch.zeros(3, 4, 6)
    for bad in ({"kept": [[0], [1], [4]]}, {"kept": [[0], [1], [-1]]}, {"images": [3]}, {"images": [-1]}):
        with pytest.raises(IndexError, match=next(iter(bad))):
            prepare_regions(stored, backend=backend, **{k: torch.tensor(v) for k, v in bad.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stored": torch.zeros(3, 4)}, r"stored has shape \(3, 4\); wanted 3 dimensions"),
        ({"stored": torch.zeros(3, 4, 5, dtype=torch.int64)}, "stored is torch.int64; wanted a floating"),
        ({"kept": torch.zeros(2, 1, dtype=torch.int64)}, r"kept has shape \(2, 1\); wanted one row"),
        ({"kept": torch.zeros(3, dtype=torch.int64)}, r"kept has shape \(3,\) on cpu; wanted \(B, T\)"),
        ({"images": torch.zeros(3)}, "images is torch.float32; wanted int64"),
        ({"power": 0.0}, "power is 0.0; wanted a number above 0"),
        ({"factor": torch.ones(3, 5)}, r"factor has shape \(3, 5\); wanted one number or \(3, 1, 5\)"),
        ({"backend": "nativ"}, 'backend is "nativ"; wanted one of'),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        prepare_regions(**{"stored": torch.zeros(3, 4, 5), **changed})  # type: ignore[arg-type]


def test_a_named_backend_that_cannot_read_the_features_says_why() -> None:
    with pytest.raises(RuntimeError, match='backend "native" cannot serve prepare_regions: '):
        prepare_regions(torch.zeros(1, 2, 3, dtype=torch.float64), backend="native")


def test_autocast_gives_its_type(seed: int) -> None:
    stored = torch.randn(2, 3, 40).half()
    with torch.autocast("cpu", torch.bfloat16):
        found = prepare_regions(stored, power=0.5)
    assert torch.equal(found, prepare_regions(stored, power=0.5).bfloat16())


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_at_all(backend: str) -> None:
    assert prepare_regions(torch.zeros(0, 4, 6), backend=backend).shape == (0, 4, 6)
    assert prepare_regions(torch.zeros(2, 4, 0), power=0.5, backend=backend).shape == (2, 4, 0)
