"""The three losses of the paper's section 3.2, each a function of plain tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastzsl.ops.linear import linear


def classification(scores: Tensor, labels: Tensor) -> Tensor:
    """Equation 4: softmax loss over the seen classes, L_CLS = -mean log softmax(s(g(x~), k))[y].

    Args:
        scores: (B, C) class scores, already divided by a temperature or multiplied by its inverse.
        labels: (B,) int64, positions among the C classes.

    Returns:
        A scalar, the mean over the batch.
    """
    return F.cross_entropy(scores, labels)


def manifold_alignment(
    queries: Tensor, class_embeddings: Tensor, *, reduction: str = "mean", backend: str = "auto"
) -> Tensor:
    """Equation 5: the class graphs of both spaces agree, L_MA = ‖HᵀH - KᵀK‖²_F.

    With class rows the inner products are H Hᵀ and K Kᵀ, (C, C).

    Args:
        queries: H (C, d), the encoder's output.
        class_embeddings: K (C, m).
        reduction: "mean" over the C² entries, or "sum" as printed in the paper. The sum on unit-length
            embeddings collapses H to a constant unless alpha shrinks with C².
        backend: of the products, as of the ops.

    Returns:
        A scalar.
    """
    visual, semantic = (linear(rows, rows, backend=backend) for rows in (queries, class_embeddings))
    return F.mse_loss(visual, semantic, reduction=reduction)


def semantic_reconstruction(
    reconstructed: Tensor, class_embeddings: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Equation 6: the autoencoder returns every class's embedding, L_SR = ‖K - h_d(h_e(K))‖²_F.

    Args:
        reconstructed: h_d(h_e(K)) (C, m), of seen and unseen classes.
        class_embeddings: K (C, m).
        reduction: "mean" over the classes of the squared length of the difference, or "sum" as printed.

    Returns:
        A scalar.
    """
    squared = (reconstructed - class_embeddings).square().sum()
    return squared / len(class_embeddings) if reduction == "mean" else squared
