"""Class embeddings are brought on one scale by the seen classes alone, and new classes by the same numbers."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.methods.engines.normalisation import Normalisation, fit_columns


def _fitted(how: Normalisation, seen: torch.Tensor) -> AttendedAutoencoder:
    model = AttendedAutoencoder(8, seen.shape[1], embedding_normalisation=how).eval()
    model.fit_scaling(torch.randn(5, 9, 8), seen)
    return model


def _expected(how: str, seen: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Float64, from the definitions."""
    if how in ("centre", "whiten"):
        seen, new = seen - seen.mean(0), new - seen.mean(0)
    elif how == "standardise":
        new = (new - seen.mean(0)) / seen.std(0)
    elif how == "range":
        new = (new - seen.min(0)) / np.ptp(seen, axis=0)
    if how == "whiten":
        rows, new = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (seen, new))
        _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
        new = new @ axes.T / (sizes / sizes[0]) ** (1 / 3) @ axes
    return new if how == "none" else new / np.linalg.norm(new, axis=1, keepdims=True)


@pytest.mark.parametrize("how", get_args(Normalisation))
def test_every_choice_is_what_its_definition_says_and_treats_new_classes_alike(
    seed: int, how: Normalisation
) -> None:
    # Whitening leaves out directions that are as small as these units are apart.
    units = torch.tensor([1.0, 3.0, 0.5] if how == "whiten" else [1.0, 1000.0, 0.01])
    seen, new = (5 + torch.randn(7, 3)) * units, (5 + torch.randn(4, 3)) * units
    model = _fitted(how, seen)
    expected = _expected(how, seen.double().numpy(), new.double().numpy())
    np.testing.assert_allclose(
        model.embed(new).numpy(), expected, rtol=1e-3, atol=1e-4
    )  # 5000 less a mean of 5000
    other = AttendedAutoencoder(8, 3, embedding_normalisation=how)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.embed(new), model.embed(new)), "what was fitted is not saved with the weights"


@pytest.mark.parametrize("how", ["standardise", "range"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 12345.678])
def test_a_column_that_all_seen_classes_share_becomes_zero_and_nothing_is_divided_by_zero(
    how: Normalisation, constant: float
) -> None:
    seen = torch.tensor([[1.0, constant], [2.0, constant], [4.0, constant]])
    new = torch.tensor([[3.0, constant + 7]])
    embedded = _fitted(how, seen).embed(torch.cat([seen, new]))
    assert torch.isfinite(embedded).all()
    assert (embedded[:, 1] == 0).all()
    assert (embedded[:, 0] != 0).any()


def test_columns_that_spread_little_but_do_spread_are_kept() -> None:
    seen = torch.tensor([[1e-20], [2e-20], [3e-20]])
    shift, factor = fit_columns(seen, "range")
    torch.testing.assert_close((seen - shift) * factor, torch.tensor([[0.0], [0.5], [1.0]]))


def test_a_spread_whose_reciprocal_is_no_number_counts_as_none() -> None:
    embedded = _fitted("range", torch.tensor([[1e-41, 1.0], [3e-41, 2.0]])).embed(torch.tensor([[1.0, 2.0]]))
    assert torch.isfinite(embedded).all()
