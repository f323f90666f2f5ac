"""A zero-shot data set: classes with embeddings, splits, and images or region features, from any source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fastzsl.errors import UserError
from fastzsl.features.sources import ImageSource, RegionSource, stored_regions
from fastzsl.features.stored import Stored
from fastzsl.features.views import draw_regions


@dataclass(frozen=True)
class ZeroShotDataset:
    """Classes, their embeddings, and which images may be used for what.

    Attributes:
        name: short name, used in tables and file names.
        class_names: C names.
        class_embeddings: (C, m) float32, attributes or word vectors.
        seen, unseen: int64 class ids; each id of 0..C-1 is at most once in the two. There may be no unseen class.
        labels: (N,) int64 class id of each image.
        trainval: int64 image indices for training (seen classes only).
        test_seen, test_unseen: int64 image indices for testing only. `test_unseen` is empty if no unseen class has an
            image; then there is no test on unseen classes.
        images, regions: sources of images and features; at least one of the two.
        attribute_names: m names, or empty.
        fingerprint: changes whenever the images change, or the features that came with the data set. It does not
            depend on folders. The cached features are named after it.
        image_ids: (N,) index of each image in its source, of which this data set may be a part.
        views: features of further views of the same images, see `fastzsl.features.views`.
        adapt: makes other features for each problem of held-out classes, of all images and a source for each view;
            with None every problem has the features above.
    """

    name: str
    class_names: tuple[str, ...]
    class_embeddings: Tensor
    seen: Tensor
    unseen: Tensor
    labels: Tensor
    trainval: Tensor
    test_seen: Tensor
    test_unseen: Tensor
    images: ImageSource | None = None
    regions: RegionSource | None = None
    attribute_names: tuple[str, ...] = ()
    fingerprint: str = ""
    image_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    views: tuple[RegionSource, ...] = ()
    adapt: Callable[[ZeroShotDataset], tuple[RegionSource, ...]] | None = None
    _identity: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not len(self.image_ids):
            object.__setattr__(self, "image_ids", torch.arange(len(self.labels)))
        check(self)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def embedding_dim(self) -> int:
        return self.class_embeddings.shape[1]

    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that decides a result on this data set.

        This is: the images or the features that came with the data set (by `fingerprint`, or without one by every
        pixel or number), class names, class embeddings, labels, splits and `image_ids`. Names and places of folders
        are not included. Features that were extracted from the images are not included either, because the settings
        say how they were extracted. Computed once for each object.
        """
        if not self._identity:
            object.__setattr__(self, "_identity", _identity(self))
        return self._identity

    def read_regions(self, indices: Tensor, view: int = 0) -> Tensor:
        """Region features (B, T, d) of the images `indices` of this data set; view 0 is the whole image."""
        return self._sources()[view].regions(self.image_ids[indices])

    def draw_regions(self, indices: Tensor, draw: int) -> Stored:
        """As `read_regions`, each image in a view that is drawn at random from the number `draw`; to be prepared."""
        sources = self._sources()
        if len(sources) == 1:
            return stored_regions(sources[0], self.image_ids[indices])
        return Stored(draw_regions(sources, self.image_ids[indices], len(sources[0]), draw))

    def _sources(self) -> tuple[RegionSource, ...]:
        if self.regions is None:
            raise UserError(f"data set {self.name} has images but no region features yet; extract them first")
        return (self.regions, *self.views)

    def with_regions(self, regions: RegionSource, *views: RegionSource) -> ZeroShotDataset:
        """The same data set reading its features from `regions` and `views`, which cover the whole source."""
        return replace(self, regions=regions, views=views)


def _identity(data: ZeroShotDataset) -> str:
    digest = hashlib.sha256(f"fastzsl data 1\n{data.fingerprint}\n".encode())
    names = "\0".join(data.class_names).encode("utf-8", "surrogateescape")
    digest.update(f"class_names {data.num_classes} {len(names)}\n".encode() + names)
    fields = (
        "class_embeddings", "seen", "unseen", "labels", "trainval", "test_seen", "test_unseen", "image_ids",
    )  # fmt: skip
    for name in fields:
        values = getattr(data, name).detach().cpu()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        digest.update(values.contiguous().numpy().tobytes())
    if not data.fingerprint:
        _add_contents(digest, data)
    return digest.hexdigest()


def _add_contents(digest: hashlib._Hash, data: ZeroShotDataset) -> None:
    """Every number of the regions, or every pixel of the images if there are no regions."""
    for index in data.image_ids.tolist():
        if data.regions is not None:
            values = data.regions.regions([index]).float().numpy()
        else:
            assert data.images is not None, "a data set has images or regions"
            values = np.asarray(data.images.image(index))
        digest.update(f"{values.shape}\n".encode() + values.tobytes())


def redraw_classes(data: ZeroShotDataset, seed: int, image_share: float = 0.2) -> ZeroShotDataset:
    """The same images with other classes unseen, as many as before, drawn from `seed`.

    A single split of the classes says little about a method: results often differ more between splits than between
    methods.

    Raises:
        UserError: the data set has no unseen class, or a class without images.
    """
    imageless = data.num_classes - len(data.labels.unique())
    if not len(data.unseen) or imageless:
        raise UserError(
            f"data set {data.name} has {len(data.unseen)} unseen classes and {imageless} classes without images; "
            "other classes can be made unseen (--class-split) only if some are unseen and all have images"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.cat([data.seen, data.unseen]).sort().values
    shuffled = shuffled[torch.randperm(len(shuffled), generator=generator)]
    unseen, seen = shuffled[: len(data.unseen)].sort().values, shuffled[len(data.unseen) :].sort().values
    indices = torch.arange(len(data.labels))
    of_seen = torch.isin(data.labels, seen)
    trainval, test_seen = split_per_class(indices[of_seen], data.labels[of_seen], image_share, generator)
    test_unseen = indices[torch.isin(data.labels, unseen)]
    return replace(
        data, seen=seen, unseen=unseen, trainval=trainval, test_seen=test_seen, test_unseen=test_unseen
    )


def split_per_class(
    indices: Tensor, labels: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split image indices class by class into the rest and a random `share` of at least one image.

    A class with a single image keeps it in the first part.
    """
    first, second = [], []
    for label in labels.unique().tolist():
        own = indices[labels == label]
        own = own[torch.randperm(len(own), generator=generator)]
        cut = min(max(1, round(share * len(own))), len(own) - 1)
        second.append(own[:cut])
        first.append(own[cut:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def check(data: ZeroShotDataset) -> None:
    """Raise `UserError` naming the first rule that the data set breaks, with a count and examples."""
    where = f"data set {data.name}"
    classes, names = len(data.class_names), data.class_names
    if data.class_embeddings.ndim != 2 or len(data.class_embeddings) != classes:
        raise UserError(
            f"{where}: class_embeddings has shape {tuple(data.class_embeddings.shape)}; "
            f"wanted ({classes}, m), a row a class"
        )
    if not torch.isfinite(data.class_embeddings).all():
        bad = (~torch.isfinite(data.class_embeddings)).any(1).nonzero().flatten()
        raise UserError(f"{where}: class_embeddings of {names[int(bad[0])]} has NaN or infinite entries")
    if len(set(names)) != classes:
        twice = sorted({n for n in names if names.count(n) > 1})
        raise UserError(f"{where}: class names appear twice: {', '.join(twice[:5])}")
    if len(data.seen) < 2:
        raise UserError(f"{where} has {len(data.seen)} seen classes; training needs at least two")
    if classes > 1 and bool((data.class_embeddings == data.class_embeddings[0]).all()):
        raise UserError(f"{where}: all classes have the same attributes; they must tell the classes apart")
    both = set(data.seen.tolist()) & set(data.unseen.tolist())
    if both:
        raise UserError(f"{where}: {len(both)} classes are seen and unseen: {_examples(both, names)}")
    if data.images is None and data.regions is None:
        raise UserError(f"{where} has neither images nor region features")
    if len(data.image_ids) != len(data.labels):
        raise UserError(f"{where}: {len(data.image_ids)} images but {len(data.labels)} labels")
    if len(data.labels) and not 0 <= int(data.labels.min()) <= int(data.labels.max()) < classes:
        raise UserError(
            f"{where}: labels run from {int(data.labels.min())} to {int(data.labels.max())}; "
            f"wanted 0 to {classes - 1}"
        )
    _check_splits(data, where)


def _check_splits(data: ZeroShotDataset, where: str) -> None:
    count = len(data.labels)
    parts = {"trainval": data.trainval, "test_seen": data.test_seen, "test_unseen": data.test_unseen}
    for name, part in parts.items():
        if not len(part) and name != "test_unseen":
            raise UserError(f"{where}: split {name} is empty")
        bad = part[(part < 0) | (part >= count)]
        if len(bad):
            raise UserError(
                f"{where}: {len(bad)} indices of {name} are outside 0 to {count - 1}, first {bad[:3].tolist()}"
            )
        if len(part.unique()) != len(part):
            raise UserError(f"{where}: split {name} names an image twice")
        classes, kind = (data.unseen, "unseen") if name == "test_unseen" else (data.seen, "seen")
        foreign = part[~torch.isin(data.labels[part], classes)]
        if len(foreign):
            raise UserError(
                f"{where}: {len(foreign)} images of {name} have a class that is not {kind}, "
                f"first {foreign[:3].tolist()}"
            )
    for name in ("test_seen", "test_unseen"):
        shared = set(data.trainval.tolist()) & set(parts[name].tolist())
        if shared:
            raise UserError(f"{where}: {len(shared)} images are in trainval and {name}: {sorted(shared)[:3]}")


def _examples(ids: set[int], names: tuple[str, ...]) -> str:
    shown = ", ".join(names[i] for i in sorted(ids)[:3])
    return shown + (", …" if len(ids) > 3 else "")
