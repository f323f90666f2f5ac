"""The classes that an image can be assigned to: the run's own, or new ones given as rows of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastzsl.data.descriptions.names import plain_name
from fastzsl.data.descriptions.reading import Descriptions, read_descriptions
from fastzsl.errors import UserError, nearest
from fastzsl.files.special import refuse_special

OWN, BESIDE = ("all", "unseen", "seen"), ("seen", "all")

Classes = str | Path | Mapping[str, Sequence[float] | Mapping[str, float]]
"""Values of `classes=`: "all", "unseen" or "seen" for the run's own classes, the path of a table
`class,<attribute>...` or of an .npz or .mat file, or a mapping from a new class's name to its attributes."""


Missing = Literal["error", "mean", "zero"]
MISSING = ("error", "mean", "zero")
Beside = Literal["seen", "all"]
"""Values of `beside=`: new classes are candidates together with the run's seen classes, or with all its classes."""


@dataclass(frozen=True)
class CandidateClasses:
    """Classes to choose from.

    Attributes:
        names: C names.
        embeddings: (C, m) float32, in the units of the run's classes.csv.
        training_ids: (C,) int64, each class's position among the training classes, -1 for other classes.
        kinds: "seen", "unseen" or "new" for each class.
        gamma: the number that `bias` adds; 0 if it adds none.
        description: one line for people, which says whether gamma is used and why.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    training_ids: Tensor
    kinds: tuple[str, ...]
    gamma: float
    description: str

    @property
    def bias(self) -> Tensor:
        """(C,) float32, added to the scores: gamma for classes that the run was not trained on (equation 9)."""
        return self.gamma * (self.training_ids < 0).float()


class OwnClasses:
    """The classes of a run, as its classes.csv holds them.

    Args:
        table: the run's classes.csv.
        gamma: calibration of equation 9.

    Raises:
        UserError: the table does not say which classes are seen.
    """

    def __init__(self, table: Descriptions, gamma: float) -> None:
        if table.splits is None:
            raise UserError(f"{table.path}: no column split; wanted the classes.csv of a run")
        self.names, self.attributes = tuple(table.names), tuple(table.attributes)
        self.embeddings = torch.from_numpy(table.values).float()
        self.unseen = torch.tensor([split == "unseen" for split in table.splits])
        self.training_ids = torch.where(self.unseen, -1, (~self.unseen).cumsum(0) - 1)
        self.gamma = gamma

    def candidates(
        self, classes: Classes = "all", beside: Beside | None = None, missing: Missing = "error"
    ) -> CandidateClasses:
        """The classes that the user named.

        Args:
            classes: the run's own, or new ones.
            beside: "seen" or "all" adds the run's own classes to new ones. The classes that the run was not trained
                on then get gamma, as in evaluation.
            missing: attributes of new classes that are not given are an error, or become the mean of the seen classes,
                or 0.

        Raises:
            UserError: an unknown word, an unreadable table, attributes that are not the run's, `beside` without
                new classes, or a new class with the name of an own one.
        """
        if beside not in (None, *BESIDE):
            raise UserError(f'beside is "{beside}"; wanted "seen" or "all"')
        if isinstance(classes, str) and classes in OWN:
            if beside is not None:
                raise UserError(
                    f"beside {beside} needs new classes, but classes is {classes}, the run's own; "
                    "wanted a table or attributes of new classes"
                )
            return self._own(classes)
        names, embeddings, origin = self._read_new(classes, missing)
        if beside is None:
            return self._new(names, embeddings, origin)
        return self._beside(names, embeddings, origin, beside)

    def _own(self, which: str) -> CandidateClasses:
        chosen = {"all": self.unseen >= 0, "unseen": self.unseen, "seen": ~self.unseen}[which]
        ids = chosen.nonzero().flatten()
        unseen, seen = int((chosen & self.unseen).sum()), int((chosen & ~self.unseen).sum())
        if not len(ids):
            raise UserError(f"the run has no {which} classes; wanted all, or new classes")
        if which == "all":
            description = f"among the run's {len(ids)} classes; " + self._reason(unseen, seen, "unseen")
        else:
            equation = " (equation 8)" if which == "unseen" else ""
            description = f"among the run's {len(ids)} {which} classes{equation}"
        return CandidateClasses(
            tuple(self.names[i] for i in ids.tolist()),
            self.embeddings[ids],
            self.training_ids[ids],
            tuple("unseen" if self.unseen[i] else "seen" for i in ids.tolist()),
            self.gamma if unseen and seen else 0.0,
            description,
        )

    def _beside(
        self, names: Sequence[str], embeddings: Tensor, origin: str, beside: Beside
    ) -> CandidateClasses:
        """New classes together with the run's own."""
        own = self._own(beside)
        known = {plain_name(name): name for name in own.names}
        for name in names:
            if plain_name(name) in known:
                raise UserError(
                    f"{origin}: class {name} is one of the run's own ({known[plain_name(name)]}); "
                    f"leave it out, or leave beside {beside} out"
                )
        untrained = len(names) + own.kinds.count("unseen")
        kind = "new" if untrained == len(names) else "new and unseen"
        which = f" {beside}" if beside != "all" else ""
        return CandidateClasses(
            (*names, *own.names),
            torch.cat([embeddings, own.embeddings]),
            torch.cat([torch.full((len(names),), -1), own.training_ids]),
            (*("new" for _ in names), *own.kinds),
            self.gamma if own.kinds.count("seen") else 0.0,
            f"among {len(names)} new classes ({origin}) beside the run's {len(own.names)}{which} classes; "
            + self._reason(untrained, own.kinds.count("seen"), kind),
        )

    def _reason(self, untrained: int, seen: int, kind: str) -> str:
        """Whether gamma is used, on how many classes, and why."""
        if not untrained or not seen:
            return "without gamma, because it balances classes with training images against classes without"
        if not self.gamma:
            return "without gamma, because the run's gamma is 0"
        return (
            f"gamma {self.gamma:.4f} is added to the scores of the {untrained} {kind} ones, because a model prefers "
            f"the {seen} classes that it was trained on (equation 9)"
        )

    def _read_new(self, classes: Classes, missing: Missing) -> tuple[list[str], Tensor, str]:
        """Names, embeddings (C, m) and origin of new classes."""
        if missing not in MISSING:
            raise UserError(f'missing is "{missing}"; wanted {", ".join(MISSING)}')
        if isinstance(classes, Mapping):
            names, values = self._from_mapping(classes, missing)
            origin = "given by attributes"
        else:
            path = Path(classes)
            if not path.is_file():
                refuse_special(path, "a table of classes")
                raise UserError(
                    f"no file {path}; wanted a table class,<attribute>..., an .npz or .mat file, or one of "
                    f"{', '.join(OWN)} for the run's own classes"
                )
            found = read_descriptions(path)
            found.refuse_repeated()
            names, origin = found.names, str(path)
            values = self._in_order(found.attributes, found.values, f"{path}: columns", missing)
            if missing == "error":
                found.refuse_missing()
        empty = np.isnan(values)
        if empty.any():
            seen = self.embeddings[~self.unseen].double().mean(0).numpy()
            values = np.where(empty, seen if missing == "mean" else 0.0, values)
            columns = [name for name, lacks in zip(self.attributes, empty.any(0)) if lacks]
            more = f" and {len(columns) - 3} more" if len(columns) > 3 else ""
            how = "the mean of the seen classes" if missing == "mean" else "0"
            origin += f"; not given and filled with {how}: {', '.join(columns[:3])}{more}"
        return names, torch.from_numpy(values).float(), origin

    def _from_mapping(
        self, classes: Mapping[str, Sequence[float] | Mapping[str, float]], missing: Missing
    ) -> tuple[list[str], np.ndarray]:
        if not classes:
            raise UserError("classes is empty; wanted at least one class with its attributes")
        rows = []
        for name, given in classes.items():
            mapped = isinstance(given, Mapping)
            try:
                row = np.array(
                    list(given.values()) if isinstance(given, Mapping) else given, dtype=np.float64
                )
            except (TypeError, ValueError):
                raise UserError(f"class {name} has attributes that are no numbers") from None
            if not np.isfinite(row).all():
                raise UserError(f"class {name} has NaN or infinite attributes; wanted finite numbers")
            titles = list(given) if isinstance(given, Mapping) else []
            if not mapped and row.size != len(self.attributes):
                raise UserError(f"class {name} has {row.size} attributes; the run has {len(self.attributes)}")
            rows.append(self._in_order(titles, row.reshape(1, -1), f"class {name}: attributes", missing)[0])
        return list(classes), np.stack(rows)

    def _in_order(self, found: list[str], values: np.ndarray, what: str, missing: Missing) -> np.ndarray:
        """The columns (C, m) of the run's attributes, NaN for one that is not given; all, if they have no names."""
        wanted = list(self.attributes)
        counts = f"{values.shape[1]} attributes; the run has {len(wanted)}"
        if not found:
            if values.shape[1] != len(wanted):
                raise UserError(f"{what} without names: {counts}")
            return values
        place = {name: i for i, name in enumerate(found)}
        unknown = [name for name in found if name not in set(wanted)]
        if unknown:
            hint = nearest(unknown[0], wanted)
            raise UserError(f"{what}: {unknown[0]} is no attribute of the run{hint} ({counts})")
        absent = [name for name in wanted if name not in place]
        if absent and missing == "error":
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise UserError(
                f"{what}: {absent[0]}{more} missing ({counts}); missing=mean (--missing mean) takes the mean of the "
                "seen classes"
            )
        ordered = np.full((len(values), len(wanted)), np.nan)
        for i, name in enumerate(wanted):
            if name in place:
                ordered[:, i] = values[:, place[name]]
        return ordered

    def _new(self, names: Sequence[str], embeddings: Tensor, origin: str) -> CandidateClasses:
        return CandidateClasses(
            tuple(names), embeddings, torch.full((len(names),), -1), ("new",) * len(names), 0.0,
            f"among {len(names)} new classes ({origin}); without gamma, which balances classes with training images "
            "against classes without",
        )  # fmt: skip
