"""Wrong arguments are refused with the argument, what came and what was wanted."""

from __future__ import annotations

import pytest
import torch

from fastzsl.ops import attended_scores, dense_attention


def arguments(**changes: object) -> dict[str, object]:
    good: dict[str, object] = {
        "regions": torch.zeros(2, 4, 8),
        "queries": torch.zeros(3, 8),
        "decoder_weight": torch.zeros(5, 8),
        "decoder_bias": torch.zeros(5),
        "class_embeddings": torch.ones(3, 5),
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"queries": torch.zeros(3, 7)}, ValueError, "queries has d=7 but regions has d=8"),
        ({"regions": torch.zeros(2, 0, 8)}, ValueError, "regions has T=0"),
        ({"regions": torch.zeros(4, 8)}, ValueError, r"regions has shape \(4, 8\); wanted 3 dimensions"),
        ({"decoder_weight": torch.zeros(5, 9)}, ValueError, "decoder_weight has d=9 but regions has d=8"),
        ({"decoder_bias": torch.zeros(4)}, ValueError, r"decoder_bias has shape \(4,\); wanted \(5,\)"),
        ({"class_embeddings": torch.ones(4, 5)}, ValueError, "class_embeddings has C=4 but queries has C=3"),
        ({"class_embeddings": torch.ones(3, 6)}, ValueError, "class_embeddings has m=6 but decoder_weight has m=5"),
        ({"queries": torch.zeros(3, 8).double()}, TypeError, "queries is torch.float64 but regions is torch.float32"),
        ({"queries": [[0.0] * 8]}, TypeError, "queries is a list; wanted a tensor"),
        ({"regions": torch.zeros(2, 4, 8, dtype=torch.long)}, TypeError, "wanted a floating dtype"),
        ({"similarity": "euclid"}, ValueError, 'similarity is "euclid"; wanted "cosine" or "dot"'),
        ({"scale": float("nan")}, ValueError, "scale is nan; wanted a finite number"),
        ({"backend": "cuda"}, ValueError, 'backend is "cuda"; wanted one of auto, eager, native, triton'),
    ],
)  # fmt: skip
def test_wrong_argument(changes: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        attended_scores(**arguments(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_empty_batch_gives_empty_result(similarity: str) -> None:
    empty = arguments(regions=torch.zeros(0, 4, 8), similarity=similarity)
    assert attended_scores(**empty).shape == (0, 3)  # type: ignore[arg-type]
    assert dense_attention(torch.zeros(0, 4, 8), torch.zeros(3, 8)).shape == (0, 3, 8)
