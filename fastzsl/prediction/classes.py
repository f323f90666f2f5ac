"""The classes that an image can be assigned to: the run's own, or new ones given as rows of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastzsl.data.formats.folder import read_classes
from fastzsl.errors import UserError, nearest

OWN = ("all", "unseen", "seen")

Classes = str | Path | Mapping[str, Sequence[float] | Mapping[str, float]]
"""Values of `classes=`: "all", "unseen" or "seen" for the run's own classes, the path of a table
`class,<attribute>...`, or a mapping from a new class's name to its attributes."""


@dataclass(frozen=True)
class CandidateClasses:
    """Classes to choose from.

    Attributes:
        names: C names.
        embeddings: (C, m) float32, in the units of the run's classes.csv.
        training_ids: (C,) int64, each class's position among the training classes, -1 for other classes.
        bias: (C,) float32, added to the scores: gamma for unseen classes if seen classes are candidates too.
        description: one line for people.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    training_ids: Tensor
    bias: Tensor
    description: str


class OwnClasses:
    """The classes of a run, as its classes.csv holds them.

    Args:
        table: path of the run's classes.csv.
        gamma: calibration of equation 9.
    """

    def __init__(self, table: Path, gamma: float) -> None:
        names, splits, attributes, self.embeddings = read_classes(table)
        self.names, self.attributes = tuple(names), tuple(attributes)
        self.unseen = torch.tensor([split == "unseen" for split in splits])
        self.training_ids = torch.where(self.unseen, -1, (~self.unseen).cumsum(0) - 1)
        self.gamma = gamma

    def candidates(self, classes: Classes = "all") -> CandidateClasses:
        """The classes that the user named.

        Raises:
            UserError: an unknown word, an unreadable table, or attributes that are not the run's.
        """
        if isinstance(classes, Mapping):
            return self._from_mapping(classes)
        if str(classes) in OWN:
            return self._own(str(classes))
        table = Path(classes)
        if not table.is_file():
            raise UserError(
                f"no file {table}; wanted a table class,<attribute>..., or one of {', '.join(OWN)} "
                "for the run's own classes"
            )
        names, _, attributes, embeddings = read_classes(table)
        order = self._order(attributes, f"{table}: columns")
        return self._new(names, embeddings[:, order], str(table))

    def _own(self, which: str) -> CandidateClasses:
        unseen = int(self.unseen.sum())
        if which == "all":
            description = (
                f"among the run's {len(self.names)} classes; gamma {self.gamma:.4f} is added to the scores "
                f"of the {unseen} unseen ones (equation 9)"
            )
            bias = self.gamma * self.unseen.float()
            return CandidateClasses(self.names, self.embeddings, self.training_ids, bias, description)
        chosen = (self.unseen if which == "unseen" else ~self.unseen).nonzero().flatten()
        equation = " (equation 8)" if which == "unseen" else ""
        return CandidateClasses(
            tuple(self.names[i] for i in chosen.tolist()),
            self.embeddings[chosen],
            self.training_ids[chosen],
            torch.zeros(len(chosen)),
            f"among the run's {len(chosen)} {which} classes{equation}",
        )

    def _from_mapping(self, classes: Mapping[str, Sequence[float] | Mapping[str, float]]) -> CandidateClasses:
        if not classes:
            raise UserError("classes is empty; wanted at least one class with its attributes")
        rows = []
        for name, values in classes.items():
            if isinstance(values, Mapping):
                order = self._order(list(values), f"class {name}: attributes")
                row = torch.tensor([float(v) for v in values.values()])[order]
            else:
                row = torch.as_tensor(values, dtype=torch.float32).flatten()
                if len(row) != len(self.attributes):
                    raise UserError(
                        f"class {name} has {len(row)} attributes; the run has {len(self.attributes)}"
                    )
            if not torch.isfinite(row).all():
                raise UserError(f"class {name} has NaN or infinite attributes; wanted finite numbers")
            rows.append(row)
        return self._new(list(classes), torch.stack(rows), "given by attributes")

    def _order(self, found: list[str], what: str) -> Tensor:
        """Positions of the run's attributes in `found`, which must have the same names in any order."""
        wanted, known = list(self.attributes), set(self.attributes)
        counts = f"{len(found)} attributes; the run has {len(wanted)}"
        unknown = [name for name in found if name not in known]
        if unknown:
            hint = nearest(unknown[0], wanted)
            raise UserError(f"{what}: {unknown[0]} is no attribute of the run{hint} ({counts})")
        missing = [name for name in wanted if name not in set(found)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"{what}: {missing[0]}{more} missing ({counts})")
        twice = [name for name in wanted if found.count(name) > 1]
        if twice:
            raise UserError(f"{what}: {twice[0]} is listed {found.count(twice[0])} times ({counts})")
        return torch.tensor([found.index(name) for name in wanted])

    def _new(self, names: Sequence[str], embeddings: Tensor, origin: str) -> CandidateClasses:
        return CandidateClasses(
            tuple(names), embeddings, torch.full((len(names),), -1), torch.zeros(len(names)),
            f"among {len(names)} new classes ({origin}); without gamma, which balances the run's own unseen "
            "classes against its seen ones",
        )  # fmt: skip
