"""Held-out seen classes: the code that chooses settings gets an object without test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset, split_per_class
from fastzsl.errors import UserError, nearest
from fastzsl.features.sources import ImageSource, RegionSource, stored_regions
from fastzsl.features.stored import Stored

TEST_SHARE = 0.2
"""Share of the images of each remaining class that is used as test_seen."""
HELD_OUT_SHARE = 0.2
"""Share of the seen classes that is held out if the data set has no unseen class, whose share would say more."""


@dataclass(frozen=True)
class HeldOutClasses:
    """Which seen classes are held out and used as unseen classes.

    Attributes:
        seed: shuffles the seen classes, and draws the images that are used as test_seen.
        fold, folds: the shuffled classes are divided into `folds` equal parts, and part `fold` is held out, so
            every seen class is held out once in each repetition. With folds = 0 the share of held-out classes is
            that of the unseen classes among all classes, or `HELD_OUT_SHARE` if no class is unseen; gamma is chosen so.
        names: the names of the held-out classes, instead of a part of the shuffled ones.
    """

    seed: int
    fold: int = 0
    folds: int = 0
    names: tuple[str, ...] = ()


class SeenClassesOnly:
    """The training images of a data set, and nothing else.

    It has no test index, no label of a test image and no description of an unseen class. Its sources refuse every image
    that is not a training image, so a mistake raises an error instead of giving figures that are too good.

    Args:
        data: the full problem; no reference to it is kept.
    """

    def __init__(self, data: ZeroShotDataset) -> None:
        allowed = data.image_ids[data.trainval]
        seen = data.seen.sort().values
        position = torch.full((data.num_classes,), -1, dtype=torch.long)
        position[seen] = torch.arange(len(seen))
        self.name = data.name
        self.class_names = tuple(data.class_names[i] for i in seen.tolist())
        self._embeddings = data.class_embeddings[seen].clone()
        self._labels = position[data.labels[data.trainval]]
        self._image_ids = allowed.clone()
        self._images = OnlyImages(data.images, allowed) if data.images is not None else None
        self._regions = OnlyRegions(data.regions, allowed) if data.regions is not None else None
        self._views = tuple(OnlyRegions(view, allowed) for view in data.views)
        self._fingerprint = data.fingerprint
        self._attributes = data.attribute_names
        self._adapt = data.adapt
        self._share = len(data.unseen) / data.num_classes or HELD_OUT_SHARE

    def problem(self, held_out: HeldOutClasses) -> ZeroShotDataset:
        """A zero-shot problem in which some seen classes are used as unseen classes.

        Raises:
            UserError: too few seen classes for that many folds, or a name that is not of a seen class.
        """
        if held_out.names:
            return self._hold_out(self._ids(held_out.names), held_out.seed, "named")
        count = len(self.class_names)
        if held_out.folds:
            sizes = [len(part) for part in torch.arange(count).tensor_split(held_out.folds)]
            first, held = sum(sizes[: held_out.fold]), sizes[held_out.fold]
        else:
            first, held = 0, max(2, round(self._share * count))
        if (count // held_out.folds if held_out.folds else held) < 2 or count - held < 2:
            raise UserError(
                f"data set {self.name} has {count} seen classes; {held_out.folds or 'its'} folds need at "
                f"least {max(4, 2 * held_out.folds)}, so that two classes are held out and two stay"
            )
        generator = torch.Generator().manual_seed(held_out.seed)
        shuffled = torch.randperm(count, generator=generator).roll(-first)
        name = f"{held_out.seed}" + (f"-{first}" if first else "")
        return self._hold_out(shuffled[:held], generator, name)

    def _ids(self, names: tuple[str, ...]) -> Tensor:
        """Positions of the named classes among the seen ones."""
        for name in names:
            if name not in self.class_names:
                hint = nearest(name, list(self.class_names))
                raise UserError(f"data set {self.name} has no seen class {name}{hint}")
        held = torch.tensor(sorted({self.class_names.index(name) for name in names}))
        if len(held) < 2 or len(self.class_names) - len(held) < 2:
            raise UserError(
                f"{len(held)} of {len(self.class_names)} seen classes are held out; wanted two or more, and two left"
            )
        return held

    def _hold_out(self, held: Tensor, seed: int | torch.Generator, name: str) -> ZeroShotDataset:
        """The problem in which the classes `held` are used as unseen classes.

        A fifth of the other classes' images, drawn from `seed`, becomes test_seen.
        """
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        count = len(self.class_names)
        everything = torch.arange(count)
        held_out, kept = held.sort().values, everything[~torch.isin(everything, held)]
        old_ids = torch.cat([kept, held_out])
        new_id = torch.empty(count, dtype=torch.long)
        new_id[old_ids] = torch.arange(count)
        labels = new_id[self._labels]
        is_kept = labels < len(kept)
        indices = torch.arange(len(labels))
        trainval, test_seen = split_per_class(indices[is_kept], labels[is_kept], TEST_SHARE, generator)
        problem = ZeroShotDataset(
            name=f"{self.name}-held-out-{name}",
            class_names=tuple(self.class_names[i] for i in old_ids.tolist()),
            class_embeddings=self._embeddings[old_ids],
            seen=torch.arange(len(kept)),
            unseen=torch.arange(len(kept), count),
            labels=labels,
            trainval=trainval,
            test_seen=test_seen,
            test_unseen=indices[~is_kept],
            images=self._images,
            regions=self._regions,
            views=self._views,
            attribute_names=self._attributes,
            fingerprint=self._fingerprint,
            image_ids=self._image_ids,
        )
        if self._adapt is None:
            return problem
        own = [OnlyRegions(source, self._image_ids) for source in self._adapt(problem)]
        return problem.with_regions(*own)


class OnlyRegions:
    """Region features of allowed images.

    Raises:
        PermissionError: on an image that is not allowed.
    """

    def __init__(self, source: RegionSource, allowed: Tensor) -> None:
        self.feature_shape = source.feature_shape
        self._source = source
        self._allowed = _table(allowed, len(source))

    def __len__(self) -> int:
        return len(self._source)

    def regions(self, indices: Sequence[int] | Tensor) -> Tensor:
        _refuse(torch.as_tensor(indices, dtype=torch.long), self._allowed)
        return self._source.regions(indices)

    def stored(self, indices: Tensor) -> Stored:
        _refuse(indices, self._allowed)
        return stored_regions(self._source, indices)


class OnlyImages:
    """Allowed images.

    Raises:
        PermissionError: on an image that is not allowed.
    """

    def __init__(self, source: ImageSource, allowed: Tensor) -> None:
        self._source = source
        self._allowed = _table(allowed, len(source))

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> Image.Image:
        _refuse(torch.tensor([index]), self._allowed)
        return self._source.image(index)

    def mask(self, index: int) -> np.ndarray | None:
        _refuse(torch.tensor([index]), self._allowed)
        return self._source.mask(index)

    def describe(self, index: int) -> str:
        return self._source.describe(index)


def _table(allowed: Tensor, count: int) -> Tensor:
    table = torch.zeros(count, dtype=torch.bool)
    table[allowed] = True
    return table


def _refuse(indices: Tensor, allowed: Tensor) -> None:
    bad = indices[~allowed[indices]]
    if len(bad):
        raise PermissionError(
            f"{len(bad)} images are not training images, first {bad[:3].tolist()}; settings are chosen "
            "on training images of seen classes only"
        )
