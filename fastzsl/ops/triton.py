"""Backend "triton": being written."""

from __future__ import annotations

from fastzsl.ops.dispatch import Call

ORDERS: dict[str, tuple[str, ...]] = {"dot": ("prototype",), "cosine": ("project",)}


def missing() -> list[str]:
    return ["this version of fastzsl has no triton kernels"]


def refuses(call: Call) -> list[str]:
    return []


def slower(call: Call) -> str | None:
    return None
