"""Cross-validation over classes: which seen classes are held out and used as unseen classes."""

from __future__ import annotations

from dataclasses import dataclass

from fastzsl.data.held_out import HeldOutClasses
from fastzsl.errors import UserError


@dataclass(frozen=True)
class ClassFolds:
    """K-fold cross-validation over classes: `repeats` times, the seen classes are divided into `folds` parts.

    Attributes:
        folds: number of parts; each is held out once.
        repeats: how often the classes are shuffled and divided again.
        seed: of the shuffling.
    """

    folds: int = 3
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= 1000 or not 1 <= self.repeats <= 1000:
            raise UserError(
                f"{self.folds} folds, {self.repeats} repeats; wanted 2 to 1000 folds and 1 to 1000 repeats"
            )

    def problems(self) -> list[HeldOutClasses]:
        """Every problem of the cross-validation."""
        return [
            HeldOutClasses(self.seed * 10_007 + repeat, fold, self.folds)
            for repeat in range(self.repeats)
            for fold in range(self.folds)
        ]

    def __str__(self) -> str:
        return f"{self.folds} folds of the seen classes, {self.repeats} times, seed {self.seed}"


@dataclass(frozen=True)
class ClassDraws:
    """`count` random problems. Each holds out the share of the seen classes that unseen classes have among all.

    gamma is chosen on these problems.
    """

    count: int
    seed: int = 0

    def problems(self) -> list[HeldOutClasses]:
        """Every problem."""
        return [HeldOutClasses(self.seed * 1000 + draw) for draw in range(self.count)]

    def __str__(self) -> str:
        return f"{self.count} problems of held-out seen classes, seed {self.seed}"


@dataclass(frozen=True)
class NamedClasses:
    """One problem whose held-out classes are named, such as the validation classes that a benchmark publishes.

    Attributes:
        names: seen classes that are held out and used as unseen classes.
        seed: draws the images that are used as test_seen.
    """

    names: tuple[str, ...]
    seed: int = 0

    def problems(self) -> list[HeldOutClasses]:
        """The one problem."""
        return [HeldOutClasses(self.seed, names=self.names)]

    def __str__(self) -> str:
        return f"{len(self.names)} named validation classes, seed {self.seed}"


Folds = ClassFolds | ClassDraws | NamedClasses
"""Problems made of seen classes alone."""
