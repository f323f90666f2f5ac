"""From settings to what training needs: the checked data set, its features, the backbone."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch
from rich.progress import Progress

from fastzsl.data.dataset import ZeroShotDataset, redraw_classes
from fastzsl.data.find import Sources, find_dataset, with_features
from fastzsl.data.formats.folder import FolderImages
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, check_backbone, load_backbone
from fastzsl.features.views import VIEWS
from fastzsl.ops.dispatch import check_backend
from fastzsl.training.finetuning import FinetunedFeatures, load_trunk
from fastzsl.training.loggers import check_logger
from fastzsl.training.settings import DataSettings, FeatureSettings, Settings


def check_names(settings: Settings) -> None:
    """Raise `UserError` for a backbone, a folder or a file that does not exist.

    Call this before the settings are compared with those of an existing run: after a typing error, a message about
    different settings would not help.
    """
    data, features = settings.data, settings.features
    check_backbone(features.backbone)
    check_logger(settings.run.logger)
    check_backend(getattr(settings.method, "backend", "auto"))
    for flag, folder in (("--root", data.root), ("--images", data.images)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{flag}: no folder {folder}")
    weights = features.backbone_weights if features.backbone_weights != "random" else None
    for flag, file in (("--features", data.features), ("--backbone-weights", weights)):
        if file is not None and not Path(file).is_file():
            raise UserError(f"{flag}: no file {file}")
    own = data.class_embeddings
    if own not in ("att", "original_att") and not Path(own).is_file():
        raise UserError(
            f"--class-embeddings: no file {own}; wanted att, original_att, or a .csv, .npz or .mat file"
        )


def open_backbone(settings: FeatureSettings) -> Backbone:
    """The backbone of the settings.

    Raises:
        UserError: weights that cannot be loaded, or no map of several regions.
    """
    return load_backbone(settings.backbone, settings.backbone_weights, settings.image_size)


def load_images(settings: DataSettings) -> ZeroShotDataset:
    """The data set with the classes that the settings ask for, before any feature is extracted."""
    known = {f.name for f in fields(settings)}
    data = find_dataset(Sources(**{n: getattr(settings, n) for n in Sources._fields if n in known}))
    return data if settings.class_split is None else redraw_classes(data, settings.class_split)


def load_features(
    data_settings: DataSettings,
    feature_settings: FeatureSettings,
    device: torch.device,
    progress: Progress,
    finetuned: Path | None = None,
) -> ZeroShotDataset:
    """The data set with region features, extracted or read from the cache.

    Args:
        finetuned: weights of a backbone that was fine-tuned before; by default it is fine-tuned if the settings say so.

    Raises:
        UserError: anything wrong with data set, backbone or weights.
    """
    data = load_images(data_settings)
    _tell_skipped(data, progress)
    if feature_settings.finetune_epochs and finetuned is None:
        return _finetuned(data, feature_settings, device, progress)
    backbone, weights = open_backbone(feature_settings), feature_settings.backbone_weights
    if finetuned is not None:
        load_trunk(backbone, finetuned)
        weights = str(finetuned)
    count = len(data.labels) * len(VIEWS[feature_settings.views])
    task = progress.add_task("features", total=count)
    data = with_features(
        data,
        backbone,
        weights,
        engine=feature_settings.engine,
        views=feature_settings.views,
        device=device,
        progress=lambda images: progress.advance(task, images),
    )
    progress.update(task, completed=count)
    return data


def _finetuned(
    data: ZeroShotDataset, settings: FeatureSettings, device: torch.device, progress: Progress
) -> ZeroShotDataset:
    if data.images is None:
        raise UserError(f"--finetune-epochs needs images; data set {data.name} comes with features")
    adapt = FinetunedFeatures(settings, data.images, data.fingerprint, device, progress)
    return replace(data.with_regions(*adapt(data)), adapt=adapt)


def prepare(
    settings: Settings, device: torch.device, progress: Progress, finetuned: Path | None = None
) -> tuple[ZeroShotDataset, Backbone | None]:
    """The data set, with region features unless the backbone is to be trained, and the backbone if it is.

    Args:
        finetuned: see `load_features`.

    Raises:
        UserError: anything wrong with data set, backbone or weights.
    """
    if not settings.method.trains_backbone:
        return load_features(settings.data, settings.features, device, progress, finetuned), None
    data = load_images(settings.data)
    _tell_skipped(data, progress)
    return data, open_backbone(settings.features)


def _tell_skipped(data: ZeroShotDataset, progress: Progress) -> None:
    if isinstance(data.images, FolderImages) and data.images.skipped:
        first, count = data.images.skipped[0], len(data.images.skipped)
        progress.console.print(f"left out {count} images that cannot be read, first {first}", markup=False)
