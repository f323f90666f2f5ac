"""Settings of the run that the tests of prediction share, and its evaluation."""

from __future__ import annotations

from pathlib import Path

import torch

import fastzsl
from fastzsl.protocol.scoring import score_images
from fastzsl.training.inputs import prepare
from fastzsl.training.settings import Settings, load_settings

ATTRIBUTES = ("round", "red", "dotted", "weight")


def run_settings(folder: Path, out: Path) -> Settings:
    return Settings().changed(
        dataset="folder", root=folder, backbone="timm/test_resnet", backbone_weights="random", hidden=8,
        epochs=2, batch_size=8, gamma_folds=1, accelerator="cpu", backend="eager", out=out,
        embedding_normalisation="standardise",
    )  # fmt: skip


def evaluated(run: Path) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """Paths, evaluation's scores (N, C) and the unseen ids, for every image of the data set."""
    settings = load_settings(run / "config.yaml")
    data, _ = prepare(settings, torch.device("cpu"), _no_progress())
    assert data.regions.feature_shape[0] == 96
    scores = score_images(fastzsl.load(run).model, data, torch.arange(len(data.labels)))
    return data.images.paths, scores, data.unseen


def _no_progress():
    from rich.progress import Progress

    return Progress(disable=True)
