"""The run folder: what a run leaves, and how it is opened again."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.files.atomic import write_atomically, write_text_atomically
from fastzsl.files.tensors import load_tensors, save_tensors
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.training.checkpoint import load_state
from fastzsl.training.config import Config, load_config, save_config


class RunFolder:
    """Names of a run's files.

    config.yaml, metrics.jsonl, TensorBoard events, checkpoint.pt, gamma.json, trials (where epochs are chosen),
    model.safetensors, classes.csv, results.json, attention.png, accuracy.png.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.gamma = path / "gamma.json"
        self.trials = path / "trials"
        self.model = path / "model.safetensors"
        self.classes = path / "classes.csv"
        self.results = path / "results.json"
        self.attention_figure = path / "attention.png"
        self.accuracy_figure = path / "accuracy.png"

    def refuse_foreign(self, config: Config) -> None:
        """Raise `UserError` unless the folder is new, empty, or holds a run of these very settings."""
        if self.config.exists():
            self._refuse_other_settings(config)
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is not empty and holds no run (no config.yaml); choose another --out"
            )

    def begin(self, config: Config) -> None:
        """Make the folder; unless the run is resumed, what an earlier run of the same settings left goes.

        Called when the data set was read and found right, so that bad input costs nobody a finished run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not config.resume:
            for old in (self.checkpoint, self.metrics, self.gamma, self.results):
                old.unlink(missing_ok=True)
            shutil.rmtree(self.trials, ignore_errors=True)
            for events in self.path.glob("events.out.tfevents.*"):
                events.unlink()
        write_atomically(self.config, lambda partial: save_config(config, partial))

    def _refuse_other_settings(self, config: Config) -> None:
        held = load_config(self.config).training_settings()
        for name, value in config.training_settings().items():
            if held.get(name) != value:
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{self.path} holds a run with {flag} {held.get(name)}, not {value}; choose another --out, "
                    "or remove the folder"
                )

    def save_model(self, model: AttendedAutoencoder) -> None:
        """model.safetensors: the model's tensors; a backbone that was not trained is not among them."""
        save_tensors(self.model, model.state_dict())

    def load_model(self, model: AttendedAutoencoder) -> None:
        """Load model.safetensors into a model of the same settings.

        Raises:
            UserError: the file is absent, cut short, or of another model.
        """
        tensors = load_tensors(self.model)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(f"{self.model}: {str(error).splitlines()[-1].strip()}") from None

    def save_classes(self, data: ZeroShotDataset) -> None:
        """classes.csv, in the form that an image folder's has."""
        text = io.StringIO()
        writer = csv.writer(text)
        attributes = data.attribute_names or tuple(f"a{i}" for i in range(data.embedding_dim))
        writer.writerow(["class", "split", *attributes])
        unseen = set(data.unseen.tolist())
        for i, (name, row) in enumerate(zip(data.class_names, data.class_embeddings.tolist())):
            writer.writerow([name, "unseen" if i in unseen else "seen", *(f"{v:.9g}" for v in row)])
        write_text_atomically(self.classes, text.getvalue())

    def save_json(self, path: Path, values: Mapping[str, Any]) -> None:
        write_text_atomically(path, json.dumps(values, indent=2) + "\n")

    def load_json(self, path: Path) -> dict[str, Any]:
        """Read one of the run's JSON files.

        Raises:
            UserError: absent or cut short.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no file {path}; the run is not finished") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not whole JSON ({error})") from None
        return values

    def load_gamma(self) -> float:
        """The calibration that the run chose.

        Raises:
            UserError: gamma.json is absent, or holds no number.
        """
        values = self.load_json(self.gamma)
        gamma = values.get("gamma") if isinstance(values, dict) else None
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not math.isfinite(gamma):
            raise UserError(f"{self.gamma}: gamma is {gamma!r}; wanted a finite number")
        return float(gamma)


class MetricsLog:
    """metrics.jsonl, a line a step, and the same in TensorBoard.

    Args:
        folder: the run.
        last_step: lines of later steps, left by a run that was stopped after its last checkpoint, are dropped.
    """

    def __init__(self, folder: RunFolder, last_step: int = 0) -> None:
        kept = []
        if folder.metrics.exists():
            for line in folder.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= last_step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError):
                    break  # the line that the stopped run was writing
        write_text_atomically(folder.metrics, "".join(kept))
        self._file = open(folder.metrics, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._writer = SummaryWriter(str(folder.path), purge_step=last_step + 1)

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._writer.close()


def last_step(checkpoint: Path) -> int:
    """The step of a checkpoint, 0 if there is none."""
    return int(load_state(checkpoint)["step"]) if checkpoint.exists() else 0
