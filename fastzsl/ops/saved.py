"""What the forward pass of `attended_scores` keeps for its backward pass, beside the attention."""

from __future__ import annotations


def values_shape(B: int, T: int, C: int, d: int, m: int, similarity: str, order: str) -> tuple[int, int, int]:
    """Shape of `values`, the contents of which are told in `kernel_ops.scores_forward`.

    >>> values_shape(2, 49, 200, 2048, 312, "cosine", "project")
    (2, 49, 312)
    """
    if order == "prototype":
        return (B, C, T)
    return (B, T, m) if order == "project" else (B, C, d)
