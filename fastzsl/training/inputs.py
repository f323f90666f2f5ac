"""From a configuration to what training needs: the checked data set, its features, the backbone."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import Progress

from fastzsl.data.dataset import ZeroShotDataset, redraw_classes
from fastzsl.data.find import Sources, find_dataset, with_features
from fastzsl.data.formats.folder import FolderImages
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, check_backbone, load_backbone
from fastzsl.training.config import Config


def check_names(config: Config) -> None:
    """Raise `UserError` for a backbone, a folder or a file that there is not.

    Before anything else is said of the settings: that a run has others would not help whoever mistyped one.
    """
    check_backbone(config.backbone)
    for flag, folder in (("--root", config.root), ("--images", config.images)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{flag}: no folder {folder}")
    weights = config.backbone_weights if config.backbone_weights != "random" else None
    for flag, file in (("--features", config.features), ("--backbone-weights", weights)):
        if file is not None and not Path(file).is_file():
            raise UserError(f"{flag}: no file {file}")
    own = config.class_embeddings
    if own not in ("att", "original_att") and not Path(own).is_file():
        raise UserError(
            f"--class-embeddings: no file {own}; wanted att, original_att, or a .csv, .npz or .mat file"
        )


def prepare(
    config: Config, device: torch.device, progress: Progress
) -> tuple[ZeroShotDataset, Backbone | None]:
    """The data set, with region features unless the backbone is to be trained, and the backbone if it is.

    Raises:
        UserError: anything wrong with data set, backbone or weights.
    """
    data = find_dataset(Sources(**{name: getattr(config, name) for name in Sources._fields}))
    if isinstance(data.images, FolderImages) and data.images.skipped:
        progress.console.print(
            f"left out {len(data.images.skipped)} pictures that cannot be read, first {data.images.skipped[0]}"
        )
    if config.class_split is not None:
        data = redraw_classes(data, config.class_split)
    backbone = load_backbone(config.backbone, config.backbone_weights)
    if config.train_backbone:
        return data, backbone
    task = progress.add_task("features", total=len(data.labels))
    data = with_features(
        data, backbone, config.backbone_weights, device=device,
        progress=lambda pictures: progress.advance(task, pictures),
    )  # fmt: skip
    progress.update(task, completed=len(data.labels))
    return data, None


def feature_dim(data: ZeroShotDataset, backbone: Backbone | None) -> int:
    """d of the features that the model will see."""
    if backbone is not None:
        return backbone.feature_dim
    assert data.regions is not None, "prepare() extracts features where no backbone is trained"
    return data.regions.feature_shape[0]
