"""The data that a method may read during training. Reading anything else raises an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.features.stored import Stored

T = TypeVar("T")
CHUNK = 256


def pool(regions: Tensor) -> Tensor:
    """Mean over the regions, (B, T, d) -> (B, d) float32."""
    return regions.float().mean(1)


def pool_views(data: ZeroShotDataset, indices: Tensor) -> Tensor:
    """Mean over the regions and the views (B, d) float32 of the images `indices` of a data set."""
    total = pool(data.read_regions(indices))
    for view in range(len(data.views)):
        total += pool(data.read_regions(indices, view + 1))
    return total / (1 + len(data.views)) if data.views else total


class Problem:
    """The training images of the seen classes, their labels, and the class descriptions that were declared.

    Training classes are numbered 0 to C_s - 1, training images 0 to N - 1. Test images, their labels, and
    descriptions that the method did not declare cannot be reached.

    Args:
        data: the data set, or a problem of held-out classes when settings are chosen.
        descriptions: "seen", or "all" for a method that declares that it reads the unseen ones.

    Attributes:
        name: of the data set.
        labels: (N,) int64 training class of each training image.
        seen_descriptions: (C_s, m) float32.
        feature_dim, embedding_dim: d and m.
    """

    def __init__(self, data: ZeroShotDataset, descriptions: Literal["seen", "all"] = "seen") -> None:
        self.name = data.name
        self.labels = torch.searchsorted(data.seen, data.labels[data.trainval])
        self.seen_descriptions = data.class_embeddings[data.seen]
        self.embedding_dim = data.embedding_dim
        self._data = data
        self._descriptions = descriptions
        self._cache: dict[str, object] = {}

    def __len__(self) -> int:
        """N, the number of training images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C_s, the number of training classes."""
        return len(self.seen_descriptions)

    @property
    def feature_dim(self) -> int:
        if self._data.regions is None:
            raise UserError(f"data set {self.name} has images but no region features yet; extract them first")
        return self._data.regions.feature_shape[0]

    @property
    def all_descriptions(self) -> Tensor:
        """(C, m) descriptions of all classes, in the order of the data set.

        Raises:
            PermissionError: the method did not declare that it reads them.
        """
        self._declared()
        return self._data.class_embeddings

    @property
    def seen(self) -> Tensor:
        """(C_s,) rows of `all_descriptions` that describe the training classes."""
        self._declared()
        return self._data.seen

    @property
    def unseen_descriptions(self) -> Tensor:
        """(C_u, m) descriptions of the classes without training images.

        Raises:
            PermissionError: the method did not declare that it reads them.
        """
        self._declared()
        return self._data.class_embeddings[self._data.unseen]

    def regions(self, indices: Tensor, draw: int | None = None) -> Tensor:
        """Region features (B, T, d) of training images, in the stored dtype.

        Args:
            indices: (B,) training images.
            draw: where the data set has several views of each image, the number from which one is drawn for each
                image; None for the whole image.
        """
        if draw is not None:
            return self.stored(indices, draw).copied()
        return self._data.read_regions(self._data.trainval[indices])

    def stored(self, indices: Tensor, draw: int) -> Stored:
        """As `regions`; features that lie in memory are not copied before they are prepared."""
        return self._data.draw_regions(self._data.trainval[indices], draw)

    def image(self, index: int) -> Image.Image:
        """Training image `index` in RGB.

        Raises:
            UserError: the data set has features only.
        """
        if self._data.images is None:
            raise UserError(
                f"data set {self.name} has region features only; the backbone cannot be trained on it"
            )
        return self._data.images.image(int(self._data.image_ids[self._data.trainval[index]]))

    def pooled(self) -> Tensor:
        """Pooled features (N, d) float32 of all training images, the mean over the views, read once and cached."""
        return self.cached("pooled", self._pool_all)

    def cached(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make`, cached for the other trainings on this problem (a grid search has many)."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]  # type: ignore[return-value]

    def _pool_all(self) -> Tensor:
        return torch.cat([pool_views(self._data, part) for part in self._data.trainval.split(CHUNK)])

    def _declared(self) -> None:
        if self._descriptions != "all":
            raise PermissionError(
                "this method declares that it reads the descriptions of seen classes only; "
                'a method that needs the others returns "all" from `descriptions`'
            )
