"""`shapes`: the built-in data set, drawn from a seed. It tests whether attention finds attributes at one place."""

from __future__ import annotations

import hashlib
import inspect
import itertools

import numpy as np
import torch
from PIL import Image

from fastzsl.data.dataset import ZeroShotDataset, split_per_class
from fastzsl.data.formats import drawing
from fastzsl.data.formats.drawing import COLOURS, SHAPES, TEXTURES, Combination, draw_image, draw_mask
from fastzsl.errors import UserError

MOST_DISTRACTORS = 50
"""With more, the objects would be too small to be recognised."""
CLASSES, UNSEEN, IMAGES, TEST_SEEN_SHARE = 40, 10, 40, 0.2


class ShapesImages:
    """Images drawn when they are needed; image i is the same on every machine and in any order."""

    def __init__(self, objects: list[list[Combination]], seed: int) -> None:
        self._objects = objects
        self._seed = seed

    def __len__(self) -> int:
        return len(self._objects)

    def image(self, index: int) -> Image.Image:
        return draw_image(self._objects[index], self._random(index))[0]

    def mask(self, index: int) -> np.ndarray:
        return draw_mask(self._objects[index], self._random(index))

    def describe(self, index: int) -> str:
        return f"shapes image {index}"

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, index])


def shapes(seed: int = 0, distractors: int = 2) -> ZeroShotDataset:
    """Make the `shapes` data set.

    8 shapes × 8 colours × 4 textures give 256 combinations; 40 are classes, 10 of them unseen, with every
    attribute of an unseen class present in several seen ones. Each of a class's 40 images shows one object
    of it and `distractors` objects of combinations that are no class. Class embeddings are the 20 binary
    attributes. A fifth of each seen class's images is test_seen.

    Args:
        seed: decides classes, split and images.
        distractors: other objects in each image, 0 to 50.

    Raises:
        UserError: another number of distractors.
    """
    if not 0 <= distractors <= MOST_DISTRACTORS:
        raise UserError(f"--distractors is {distractors}; wanted 0 to {MOST_DISTRACTORS}")
    rng = np.random.default_rng(seed)
    combinations = list(itertools.product(range(len(SHAPES)), range(len(COLOURS)), range(len(TEXTURES))))
    chosen, unseen = _choose_classes(combinations, rng)
    others = [c for c in combinations if c not in set(chosen)]

    labels = np.repeat(np.arange(CLASSES), IMAGES)
    objects = [
        [chosen[label], *(others[i] for i in rng.integers(0, len(others), distractors))] for label in labels
    ]
    embeddings = np.zeros((CLASSES, len(SHAPES) + len(COLOURS) + len(TEXTURES)), dtype=np.float32)
    for row, (shape, colour, texture) in zip(embeddings, chosen):
        row[[shape, len(SHAPES) + colour, len(SHAPES) + len(COLOURS) + texture]] = 1.0

    label_ids = torch.from_numpy(labels)
    unseen_ids = torch.tensor(sorted(unseen))
    seen_ids = torch.tensor([i for i in range(CLASSES) if i not in unseen])
    of_unseen = torch.isin(label_ids, unseen_ids)
    indices = torch.arange(len(labels))
    trainval, test_seen = split_per_class(
        indices[~of_unseen], label_ids[~of_unseen], TEST_SEEN_SHARE, torch.Generator().manual_seed(seed)
    )
    source = hashlib.sha256(inspect.getsource(drawing).encode()).hexdigest()[:8]
    return ZeroShotDataset(
        name="shapes",
        class_names=tuple(f"{TEXTURES[t]} {COLOURS[c]} {SHAPES[s]}" for s, c, t in chosen),
        class_embeddings=torch.from_numpy(embeddings),
        seen=seen_ids,
        unseen=unseen_ids,
        labels=label_ids,
        trainval=trainval,
        test_seen=test_seen,
        test_unseen=indices[of_unseen],
        images=ShapesImages(objects, seed),
        attribute_names=(*SHAPES, *COLOURS, *TEXTURES),
        fingerprint=f"shapes-{seed}-{distractors}-{source}",
    )


def _choose_classes(
    combinations: list[Combination], rng: np.random.Generator
) -> tuple[list[Combination], set[int]]:
    """Draw 40 classes and 10 of them as unseen until each unseen attribute is in at least two seen classes."""
    while True:
        chosen = [combinations[i] for i in rng.permutation(len(combinations))[:CLASSES]]
        unseen = set(rng.permutation(CLASSES)[:UNSEEN].tolist())
        seen = [c for i, c in enumerate(chosen) if i not in unseen]
        if all(sum(c[axis] == chosen[i][axis] for c in seen) >= 2 for i in unseen for axis in range(3)):
            return chosen, unseen
