"""The tensor that the forward pass of `attended_scores` saves for its backward pass, in addition to the attention."""

from __future__ import annotations


def values_shape(B: int, T: int, C: int, d: int, m: int, similarity: str, order: str) -> tuple[int, int, int]:
    """Shape of `values`; `kernel_ops.scores_forward` describes its contents.

    >>> values_shape(2, 49, 200, 2048, 312, "cosine", "project")
    (2, 49, 312)
    """
    if order == "prototype":
        return (B, C, T)
    return (B, T, m) if order == "project" else (B, C, d)
