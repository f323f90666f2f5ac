"""Open a finished run again, for evaluation, prediction and reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fastzsl.data.descriptions.reading import Descriptions
from fastzsl.data.formats.folder import read_class_table
from fastzsl.errors import UserError
from fastzsl.fabric import Fabric
from fastzsl.features.backbones import Backbone
from fastzsl.files.tensors import load_tensors
from fastzsl.methods.method import Model, new_model
from fastzsl.ops.dispatch import check_backend
from fastzsl.training.inputs import open_backbone
from fastzsl.training.launch import open_fabric
from fastzsl.training.run import RunFolder
from fastzsl.training.settings import Settings, load_settings


@dataclass(frozen=True)
class OpenedRun:
    """The contents of a finished run.

    Attributes:
        folder, settings: of the run; paths are as the run was started with.
        model: trained, on `fabric`'s device, in evaluation mode.
        classes: names, splits and descriptions, as its classes.csv holds them.
        gamma: the calibration that the run chose.
        feature_dim: d of the features that the model reads.
        stored_as_half: whether these were stored as float16.
        backbone: the trained one where the method trained it, else None.
        fabric: device and precision.
    """

    folder: RunFolder
    settings: Settings
    model: Model
    classes: Descriptions
    gamma: float
    feature_dim: int
    stored_as_half: bool
    backbone: Backbone | None
    fabric: Fabric

    @property
    def finetuned(self) -> Path | None:
        """Weights of the backbone that was fine-tuned for the run, if one was."""
        return self.folder.backbone if self.settings.features.finetune_epochs else None


def find_run(path: Path) -> tuple[RunFolder, Settings]:
    """A run folder and the settings of its training.

    Raises:
        UserError: no folder, or not a run's.
    """
    if not path.is_dir():
        raise UserError(f"no folder {path}; wanted the run folder of python -m fastzsl.train")
    folder = RunFolder(path)
    return folder, folder.with_chosen(load_settings(folder.config))


def open_run(path: Path, accelerator: str | None = None) -> OpenedRun:
    """Open the folder of a finished run.

    Args:
        path: folder that `python -m fastzsl.train` wrote.
        accelerator: "cpu", "cuda", "mps" or "auto"; default: as the run was trained.

    Raises:
        UserError: no finished run, a damaged file, or a device that this machine does not have.
    """
    folder, settings = find_run(path)
    gamma = folder.load_gamma()
    method = settings.method
    check_backend(getattr(method, "backend", "auto"))
    backbone = None
    if method.trains_backbone:  # its weights are in the run's model file
        backbone = open_backbone(replace(settings.features, backbone_weights="random"))
    classes = read_class_table(folder.classes)
    record = folder.load_json(folder.data)
    saved, half = record.get("feature_dim"), record.get("feature_dtype") == "float16"
    if not isinstance(saved, int) or isinstance(saved, bool) or not 0 < saved < 10**6:
        raise UserError(f"{folder.data}: feature_dim is {str(saved)[:40]!r}; wanted a whole number above 0")
    load_tensors(folder.model)  # report a damaged file before an error of the device
    model = new_model(method, saved, classes.values.shape[1], settings.run.seed, backbone)
    folder.load_model(model)
    fabric = open_fabric(accelerator or settings.run.accelerator, settings.run.precision)
    fabric.setup_module(model)  # in place: device and precision
    return OpenedRun(folder, settings, model.eval(), classes, gamma, saved, half, backbone, fabric)
