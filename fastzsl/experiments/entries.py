"""The rows of an experiment: methods, and the paper's model without a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fastzsl.errors import UserError, nearest
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.catalogue import METHODS, load_user_methods
from fastzsl.training.settings import Settings


@dataclass(frozen=True)
class Entry:
    """A row of the tables.

    Attributes:
        name: on the command line.
        label: in the tables; the paper's label if it has one.
        method: name of the method.
        changes: settings that differ from those that the experiment starts from.
        claim: the paper's claim about the part that is missing here.
    """

    name: str
    label: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    claim: str = ""

    def configure(self, settings: Settings, budget: bool = False) -> Settings:
        """The settings of this row.

        Args:
            settings: where the experiment starts. The settings of its method apply to every row whose method is of
                the same family; other methods start from their defaults.
            budget: use the method's documented cheap settings.
        """
        cls, base = METHODS[self.method], settings.method
        values: dict[str, Any] = dict(cls.budget) if budget else {}
        if isinstance(base, cls) or issubclass(cls, type(base)):
            values = {**values, **{f.name: getattr(base, f.name) for f in fields(base)}}
        return replace(settings, method=cls(**{**values, **self.changes}))


FULL = Entry("attended", "Ours", "attended")
NO_CALIBRATION = "Ours w/o C"
"""Row of Table 2: the full model with gamma = 0; it needs no training of its own."""

ABLATIONS = (
    Entry("no-sr", "Ours w/o SR", "attended", {"eta": 0.0}, "semantic reconstruction (equation 6) helps"),
    Entry("no-ma", "Ours w/o MA", "attended", {"alpha": 0.0}, "manifold alignment (equation 5) helps"),
    Entry(
        "decoupled", "Ours decoupled", "attended", {"coupled": False}, "coupling decoder and mapping helps"
    ),
    Entry("pooled", "Average pooling", "pooled", {}, "attended features beat pooled ones"),
    FULL,
)


def find_entries(names: Sequence[str]) -> list[Entry]:
    """Entries by name, the full model always among them and last.

    Args:
        names: methods, ablations of the paper's model, or "all" for every method.

    Raises:
        UserError: no method or ablation of that name.
    """
    load_user_methods()
    ablations = {e.name: e for e in ABLATIONS}
    known = {**{n: Entry(n, m.label, n) for n, m in METHODS.items()}, **ablations}
    wanted = [n for name in names for n in (METHODS if name == "all" else (name,))]
    for name in wanted:
        if name not in known:
            hint = nearest(name, list(known))
            raise UserError(f"--methods: there is no {name}{hint} (known: all, {', '.join(known)})")
    return [known[n] for n in dict.fromkeys(wanted) if n != FULL.name] + [FULL]


def is_family(settings: Settings) -> bool:
    """Whether an experiment starts from the paper's model, whose alpha and eta can be swept."""
    return isinstance(settings.method, Attended)
