"""Where the figures of a training go beside metrics.jsonl: TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fastzsl.errors import UserError, first_line

EXTRAS = {"wandb": ("WandbLogger", "wandb"), "mlflow": ("MLFlowLogger", "mlflow")}


class FigureLog(Protocol):
    """Takes the figures of a step."""

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardLog:
    """TensorBoard events in the run folder.

    Args:
        folder: of the run.
        last_step: events of later steps are hidden; a run that was stopped after its last checkpoint wrote them.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=last_step + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class LightningLog:
    """A logger of PyTorch Lightning, which Fabric takes too.

    Args:
        name: a key of `EXTRAS`.
        folder: of the run; its name is the name of the run in the service.
        settings: plain values that are shown with the run.

    Raises:
        UserError: the packages are not installed, or the service refuses the run.
    """

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        logger_class = _find(name)
        place: dict[str, Any] = {"save_dir": str(folder)}
        if name == "mlflow":
            # Without a server of the user's own a database in the run folder; MLflow refuses plain folders.
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
            place = {"experiment_name": "fastzsl", "run_name": folder.name, "tracking_uri": uri}
        else:
            place |= {"project": "fastzsl", "name": folder.name}
        try:
            self._logger = logger_class(**place)
            self._logger.log_hyperparams(dict(settings))
        except Exception as error:  # each service has its own errors: no network, no key, a quota
            raise UserError(f"--logger {name}: {first_line(error)}") from None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._logger.log_metrics(dict(figures), step)

    def close(self) -> None:
        self._logger.finalize("success")


def check_logger(name: str) -> None:
    """Raise `UserError` if the packages of a logger are not installed."""
    if name in EXTRAS:
        _find(name)


def open_log(name: str, folder: Path, last_step: int, settings: Mapping[str, Any]) -> FigureLog:
    """The log of this name: "tensorboard", "wandb" or "mlflow"."""
    if name == "tensorboard":
        return TensorBoardLog(folder, last_step)
    return LightningLog(name, folder, settings)


def _find(name: str) -> Callable[..., Any]:
    class_name, package = EXTRAS[name]
    try:
        importlib.import_module(package)
        found: Callable[..., Any] = getattr(importlib.import_module("pytorch_lightning.loggers"), class_name)
    except ImportError:
        raise UserError(f"--logger {name} needs more packages: pip install 'fastzsl[{name}]'") from None
    return found
