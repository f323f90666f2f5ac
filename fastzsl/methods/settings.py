"""Check that the settings of a method are in their ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fastzsl.errors import UserError

LARGEST = 10**9
"""The largest count or size that is accepted. Smaller ones may still need too much memory."""


def check_settings(
    settings: Any,
    *,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    shares: Sequence[str] = (),
    largest: dict[str, float] | None = None,
) -> None:
    """Raise `UserError` for a number that is not finite, or out of its range.

    Args:
        settings: a dataclass.
        positive: fields above 0; not_negative: 0 or more; shares: from 0 to below 1.
        largest: field -> largest value; whole numbers are at most 10^9 in any case.
    """
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        flag = f"--{entry.name.replace('_', '-')} is {value}"
        limit = (largest or {}).get(entry.name, LARGEST if isinstance(value, int) else math.inf)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{flag}; wanted a finite number")
        if entry.name in positive and not value > 0:
            raise UserError(f"{flag}; wanted a number above 0")
        if entry.name in not_negative and not value >= 0:
            raise UserError(f"{flag}; wanted 0 or more")
        if entry.name in shares and not 0 <= value < 1:
            raise UserError(f"{flag}; wanted a share from 0 to below 1")
        if value > limit:
            raise UserError(f"{flag}; wanted at most {limit:g}")
