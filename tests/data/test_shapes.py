"""`shapes` is what its docstring promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastzsl.data.formats.drawing import draw_image, draw_mask
from fastzsl.data.formats.shapes import shapes
from fastzsl.errors import UserError


def test_sizes_and_splits() -> None:
    data = shapes()
    assert (data.num_classes, len(data.unseen), data.embedding_dim, len(data.labels)) == (40, 10, 20, 1600)
    assert torch.equal(data.class_embeddings.sum(1), torch.full((40,), 3.0))
    assert torch.equal(torch.bincount(data.labels), torch.full((40,), 40))
    assert torch.equal(torch.bincount(data.labels[data.test_seen])[data.seen], torch.full((30,), 8))
    assert len(data.test_unseen) == 400


@pytest.mark.parametrize("seed", range(5))
def test_unseen_classes_are_new_combinations_of_seen_attributes(seed: int) -> None:
    data = shapes(seed)
    rows = data.class_embeddings
    assert len({tuple(r) for r in rows.tolist()}) == 40
    for unseen in rows[data.unseen]:
        assert (rows[data.seen][:, unseen.bool()].sum(0) >= 2).all()


def test_distractors_are_no_class() -> None:
    data = shapes(1, distractors=5)
    classes = {tuple(np.flatnonzero(r)) for r in data.class_embeddings.numpy()}
    for index, objects in enumerate(data.images._objects):  # type: ignore[union-attr]
        assert len(objects) == 6
        found = [(s, 8 + c, 16 + t) for s, c, t in objects]
        assert found[0] == tuple(np.flatnonzero(data.class_embeddings[data.labels[index]]))
        assert not classes & set(found[1:])


def test_an_image_is_the_same_in_any_order_and_differs_by_seed() -> None:
    first, again, other = shapes(3).images, shapes(3).images, shapes(4).images
    assert first is not None
    assert again is not None
    assert other is not None
    later = np.array(first.image(7))
    assert np.array_equal(np.array(again.image(7)), later)
    assert not np.array_equal(np.array(other.image(7)), later)
    assert later.shape == (224, 224, 3)


@pytest.mark.parametrize("distractors", [0, 2, 7])
def test_objects_do_not_overlap_and_the_mask_is_the_first_one(distractors: int) -> None:
    """Drawing the same image without distractors' colours changes nothing under the mask."""
    objects = [(0, 0, 0)] + [(1, 2, 0)] * distractors  # a solid red circle among blue squares
    for i in range(10):
        image, mask = draw_image(objects, np.random.default_rng(i))
        inside = np.asarray(image, dtype=float)[mask]
        assert 100 < mask.sum() < 0.2 * mask.size
        assert np.array_equal(draw_mask(objects, np.random.default_rng(i)), mask)
        assert (inside[:, 0] > inside[:, 2] + 40).mean() > 0.99


def test_fingerprint_names_seed_and_distractors() -> None:
    assert len({shapes(s, n).fingerprint for s in (0, 1) for n in (1, 2)}) == 4


@pytest.mark.parametrize("distractors", [-1, 51, 1_000_000, 2**63])
def test_more_distractors_than_an_image_holds_are_refused(distractors: int) -> None:
    with pytest.raises(UserError, match=f"--distractors is {distractors}; wanted 0 to 50"):
        shapes(0, distractors)
