"""Class sets too large for one device: scores, losses and rankings with the classes sharded over processes."""

from fastzsl.distributed.classes import (
    attended_scores,
    class_shard,
    cross_entropy,
    manifold_alignment,
    semantic_reconstruction,
    top_classes,
)
from fastzsl.distributed.collectives import Traffic, sum_gradients, traffic

__all__ = [
    "Traffic",
    "attended_scores",
    "class_shard",
    "cross_entropy",
    "manifold_alignment",
    "semantic_reconstruction",
    "sum_gradients",
    "top_classes",
    "traffic",
]
