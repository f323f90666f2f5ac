"""The fused operations: attended features and class scores with gradients, and the regions that they read."""

from fastzsl.ops import reference
from fastzsl.ops.api import attended_scores, dense_attention
from fastzsl.ops.dispatch import (
    Backend,
    Call,
    UnknownBackend,
    UnservedCall,
    backends,
    check_backend,
    explain,
)
from fastzsl.ops.planner import ORDERS, Plan, plan_scores, score_costs
from fastzsl.ops.prepare import prepare_regions

__all__ = [
    "ORDERS",
    "Backend",
    "Call",
    "Plan",
    "UnknownBackend",
    "UnservedCall",
    "attended_scores",
    "backends",
    "check_backend",
    "dense_attention",
    "explain",
    "plan_scores",
    "prepare_regions",
    "reference",
    "score_costs",
]
