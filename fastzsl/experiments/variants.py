"""The model and what is left of it when a part is taken away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastzsl.errors import UserError, nearest
from fastzsl.training.config import Config


@dataclass(frozen=True)
class Variant:
    """A row of the tables.

    Attributes:
        name: on the command line.
        label: in the tables, the paper's where it has one.
        changes: settings that differ from the full model's.
        claim: what the paper says of the part that is missing here.
    """

    name: str
    label: str
    changes: dict[str, Any]
    claim: str = ""

    def configure(self, config: Config) -> Config:
        return replace(config, **self.changes)


FULL = Variant("full", "Ours", {})
NO_CALIBRATION = "Ours w/o C"
"""Row of Table 2: the full model with gamma = 0; it needs no training of its own."""

VARIANTS = (
    Variant("no-sr", "Ours w/o SR", {"eta": 0.0}, "semantic reconstruction (equation 6) helps"),
    Variant("no-ma", "Ours w/o MA", {"alpha": 0.0}, "manifold alignment (equation 5) helps"),
    Variant("decoupled", "Ours decoupled", {"coupled": False}, "coupling decoder and mapping helps"),
    Variant("average", "Average pooling", {"pooling": "average"}, "attended features beat pooled ones"),
    FULL,
)


def find_variants(names: tuple[str, ...]) -> list[Variant]:
    """Variants by name, the full model always among them and last.

    Raises:
        UserError: no variant of that name.
    """
    known = [v.name for v in VARIANTS]
    for name in names:
        if name not in known:
            raise UserError(
                f"--variants: there is no {name}{nearest(name, known)} (known: {', '.join(known)})"
            )
    return [v for v in VARIANTS if v.name in (*names, FULL.name)]
