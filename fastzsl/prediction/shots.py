"""A few images of new classes, which count beside their descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastzsl.data.descriptions.names import plain_name
from fastzsl.errors import UserError, nearest
from fastzsl.files.tensors import load_tensors
from fastzsl.prediction.classes import CandidateClasses
from fastzsl.prediction.images import ImageInput, list_images
from fastzsl.protocol.shots import ClassMeans, ShotWeights, similarity

Shots = str | Path | Mapping[str, Iterable[ImageInput]]
"""A folder with a folder of images for each class, or class name -> images."""


@dataclass(frozen=True)
class ShotTerm:
    """What few images add to the scores.

    Attributes:
        centre: (d,) mean of the training images.
        means: (C, d) mean feature of each candidate; the centre for one without images, which gets nothing added.
        weight: w · spread.
        description: for people.
    """

    centre: Tensor
    means: Tensor
    weight: float
    description: str

    def __call__(self, pooled: Tensor) -> Tensor:
        """Pooled features (B, d) -> (B, C)."""
        return self.weight * similarity(pooled, self.centre.to(pooled), self.means.to(pooled))


def read_means(path: Path) -> ClassMeans | None:
    """The run's class_means.safetensors; None if it has none.

    Raises:
        UserError: a damaged file.
    """
    if not path.exists():
        return None
    tensors = load_tensors(path)
    centre, means = tensors.get("centre"), tensors.get("means")
    if (
        centre is None
        or means is None
        or centre.ndim != 1
        or means.ndim != 2
        or means.shape[1:] != centre.shape
    ):
        raise UserError(f"{path}: wanted centre (d,) and means (C, d)")
    return ClassMeans(centre.float(), means.float())


def list_shots(shots: Shots) -> dict[str, list[ImageInput]]:
    """Images by class name.

    Raises:
        UserError: no such folder, no class in it, or a class without images.
    """
    if isinstance(shots, Mapping):
        found = {name: list(images) for name, images in shots.items()}
    else:
        folder = Path(shots)
        if not folder.is_dir():
            raise UserError(f"no folder {folder}; wanted one with a folder of images for each class")
        found = {
            p.name: list(list_images(p)) for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] != "."
        }
    if not found:
        raise UserError(f"{shots or 'shots'}: no class; wanted a folder of images for each class")
    for name, images in found.items():
        if not images:
            raise UserError(f"shots of class {name}: no images")
    return found


def shot_term(
    candidates: CandidateClasses,
    features: Mapping[str, Tensor],
    known: ClassMeans | None,
    weights: ShotWeights | None,
) -> ShotTerm:
    """The term for these candidates.

    Args:
        candidates: the classes to choose from.
        features: class name -> pooled features (n, d) of its few images.
        known, weights: of the run.

    Raises:
        UserError: the run has no weights, or a class is no candidate or has training images.
    """
    if known is None or weights is None:
        raise UserError(
            "the run has no weights for a few images of a class; they are chosen with gamma, on features that are not "
            "trained: train again with --gamma-folds above 0"
        )
    places = {plain_name(name): i for i, name in enumerate(candidates.names)}
    means = known.centre.repeat(len(candidates.names), 1)
    trained = candidates.training_ids >= 0
    means[trained] = known.means[candidates.training_ids[trained]]
    for name, rows in features.items():
        place = places.get(plain_name(name))
        if place is None:
            raise UserError(
                f"shots of class {name}: it is no candidate{nearest(name, list(candidates.names))}"
            )
        if trained[place]:
            raise UserError(f"shots of class {name}: the run was trained on images of this class")
        means[place] = rows.mean(0)
    counts = torch.tensor([len(rows) for rows in features.values()])
    lacking = len(candidates.names) - int(trained.sum()) - len(features)
    description = f"; {int(counts.sum())} images of {len(features)} classes count beside their descriptions"
    if lacking:
        description += f", and {lacking} classes have none, which puts them at a disadvantage"
    return ShotTerm(known.centre, means, weights.weight(int(counts.median())), description)
