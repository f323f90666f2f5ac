"""The drop-in dense attention module."""

from __future__ import annotations

from torch import Tensor, nn

from fastzsl.ops import dense_attention


def as_regions(features: Tensor) -> Tensor:
    """A feature map (B, d, h, w) as regions (B, T, d), a view; regions pass through.

    Raises:
        ValueError: another number of dimensions.
    """
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2)
    if features.ndim == 3:
        return features
    raise ValueError(
        f"features has shape {tuple(features.shape)}; wanted a feature map (B, d, h, w) or regions (B, T, d)"
    )


class FusedDenseAttention(nn.Module):
    """Equation 3's attention: every class pools the regions of every image with its own query.

    A = softmax(scale · X^T H), X~ = X A, for all classes in one fused kernel. It has no parameters: the queries
    come from outside, so the classes may change from call to call.

    Args:
        scale: factor on the logits.
        backend: "auto", "eager", "native" or "triton".

    >>> import torch
    >>> FusedDenseAttention()(torch.zeros(2, 64, 7, 7), torch.zeros(10, 64)).shape
    torch.Size([2, 10, 64])
    """

    def __init__(self, scale: float = 1.0, backend: str = "auto") -> None:
        super().__init__()
        self.scale, self.backend = scale, backend

    def forward(
        self, features: Tensor, queries: Tensor, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attended features of every class.

        Args:
            features: feature map (B, d, h, w) or regions (B, T, d).
            queries: H (C, d).
            need_weights: also return the attention.

        Returns:
            attended (B, C, d), or (attended, attention (B, C, T)).
        """
        regions = as_regions(features)
        if need_weights:
            return dense_attention(
                regions, queries, scale=self.scale, return_attention=True, backend=self.backend
            )
        return dense_attention(regions, queries, scale=self.scale, backend=self.backend)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, backend={self.backend!r}"
