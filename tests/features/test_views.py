"""Views: what each shows, that training draws them, that test scores are their mean, and wrong settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses, SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.features.sources import MemoryRegions
from fastzsl.features.views import VIEWS, draw_regions, view_of
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.method import new_model
from fastzsl.methods.problem import Problem
from fastzsl.prediction.recogniser import load
from fastzsl.protocol.scoring import score_images
from fastzsl.train import train
from fastzsl.training.settings import DataSettings, FeatureSettings, Settings
from tests.protocol.small_problem import small_problem


def test_each_view_shows_what_its_name_says(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    shown = {view: np.asarray(view_of(image, view)) for view in VIEWS["crops"]}
    np.testing.assert_array_equal(shown["whole"], pixels)
    np.testing.assert_array_equal(shown["mirror"], pixels[:, ::-1])
    np.testing.assert_array_equal(shown["centre"], pixels[1:7, 1:10])
    np.testing.assert_array_equal(shown["centre-mirror"], pixels[1:7, 9:0:-1])


def test_a_view_is_drawn_for_each_image_whatever_else_is_in_the_batch(seed: int) -> None:
    sources = [MemoryRegions(torch.full((50, 3, 2, 2), float(view))) for view in range(3)]
    everything = draw_regions(sources, torch.arange(50), 50, draw=seed)[:, 0, 0]
    assert set(everything.tolist()) == {0.0, 1.0, 2.0}
    some = torch.tensor([7, 3, 44])
    assert torch.equal(draw_regions(sources, some, 50, draw=seed)[:, 0, 0], everything[some])
    assert not torch.equal(draw_regions(sources, torch.arange(50), 50, draw=seed + 1)[:, 0, 0], everything)


def with_views(data: ZeroShotDataset, count: int) -> ZeroShotDataset:
    maps = [torch.randn(len(data.labels), *data.regions.feature_shape) for _ in range(count)]  # type: ignore[union-attr]
    return replace(data, views=tuple(map(MemoryRegions, maps)))


def test_test_scores_are_the_mean_over_the_views(seed: int) -> None:
    data = with_views(small_problem(), 2)
    model = new_model(Attended(hidden=8), data.regions.feature_shape[0], data.embedding_dim, 0)  # type: ignore[union-attr]
    model.fit_scaling(data.read_regions(data.trainval), data.class_embeddings[data.seen])
    each = [
        score_images(model, replace(data, regions=source, views=()), data.test_unseen)
        for source in (data.regions, *data.views)
    ]
    torch.testing.assert_close(score_images(model, data, data.test_unseen), torch.stack(each).mean(0))


def test_pooled_features_are_the_mean_over_the_views(seed: int) -> None:
    data = with_views(small_problem(), 1)
    whole, other = (data.read_regions(data.trainval, view).float().mean(1) for view in (0, 1))
    torch.testing.assert_close(Problem(data).pooled(), (whole + other) / 2)


def test_held_out_problems_have_the_views_of_training_images_only(seed: int) -> None:
    data = with_views(small_problem(), 1)
    held = SeenClassesOnly(data).problem(HeldOutClasses(0))
    wanted = data.views[0].regions(held.image_ids[:2])
    assert torch.equal(held.read_regions(torch.arange(2), view=1), wanted)
    with pytest.raises(PermissionError):
        held.views[0].regions(data.test_unseen[:1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five classes of six images of noise."""
    rows = ["class,split,a,b,c"]
    generator = np.random.default_rng(0)
    for i, name in enumerate("pqrst"):
        (tmp_path / "data" / "images" / name).mkdir(parents=True)
        rows.append(f"{name},{'unseen' if i > 2 else 'seen'},{i},{i % 2},{i * i}")
        for j in range(6):
            image = Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            image.save(tmp_path / "data" / "images" / name / f"{j}.png")
    (tmp_path / "data" / "classes.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def test_a_run_with_views_predicts_with_the_scores_of_its_evaluation(folder: Path, tmp_path: Path) -> None:
    settings = Settings(
        DataSettings("folder", root=folder),
        FeatureSettings("timm/test_resnet", "random", image_size=64, views="flip"),
        Attended(hidden=8, epochs=2, batch_size=8),
    ).changed(out=tmp_path / "run", gamma_folds=0)
    train(settings)
    [mirrored] = (tmp_path / "cache").glob("*-mirror.h5")
    assert len(list((tmp_path / "cache").glob("*.h5"))) == 2
    model = load(tmp_path / "run")
    image = Image.open(next((folder / "images").rglob("*.png"))).convert("RGB")
    found = model.predict([image, view_of(image, "mirror")])
    torch.testing.assert_close(found[0].scores, found[1].scores, rtol=0, atol=1e-5)
    mirrored.unlink()
    train(settings.changed(resume=True))  # the missing view is extracted again
    assert mirrored.exists()


def test_views_of_what_has_no_images_are_refused() -> None:
    flip = FeatureSettings(views="flip")
    with pytest.raises(UserError, match="--views flip works on features that are extracted"):
        Settings(DataSettings("hdf5", features=Path("f.h5")), flip)
    with pytest.raises(UserError, match="--train-backbone"):
        Settings(features=flip, method=Attended(train_backbone=True))
