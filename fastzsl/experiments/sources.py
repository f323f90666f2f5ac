"""The data sets of an experiment by name."""

from __future__ import annotations

import typing
from dataclasses import replace
from pathlib import Path

from fastzsl.data.formats.xlsa17 import KNOWN
from fastzsl.errors import UserError, nearest
from fastzsl.training.settings import DataSettings, Settings


def data_settings(base: Settings, name: str, root: Path | None, features: Path | None) -> Settings:
    """The settings for one data set.

    Args:
        base: settings of everything else.
        name: shapes, folder, or a benchmark.
        root: folder of the data.
        features: folder with NAME.h5 for a benchmark.

    Raises:
        UserError: no such data set, or no root for one that needs it.
    """
    known = list(typing.get_args(typing.get_type_hints(DataSettings)["dataset"]))
    if name not in known:
        raise UserError(f"--datasets: there is no {name}{nearest(name, known)} (known: {', '.join(known)})")
    own_root = None if name == "shapes" else root
    own_features = features / f"{name}.h5" if features and name in KNOWN else base.data.features
    return replace(base, data=replace(base.data, dataset=name, root=own_root, features=own_features))  # type: ignore[arg-type]


def seeded(settings: Settings, seed: int, random_splits: bool) -> Settings:
    """The settings of one repetition.

    Every repetition of `shapes` has its own classes, images and split. Another data set keeps its published split, and
    only the initial weights and the order of the images change, unless `random_splits`.
    """
    if settings.data.dataset == "shapes":
        return settings.changed(seed=seed, data_seed=seed)
    split = seed if random_splits else settings.data.class_split
    return settings.changed(seed=seed, class_split=split)
