"""The run folder: the files that a run writes, and how they are read again."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.files.atomic import write_text_atomically
from fastzsl.files.tensors import load_tensors, save_tensors
from fastzsl.text.described import RECORD_OF_RUN, read_record
from fastzsl.training.finetuning import FILE
from fastzsl.training.loggers import open_log
from fastzsl.training.settings import FeatureSettings, Settings, load_settings, read_group, save_settings


class RunFolder:
    """Names of a run's files.

    config.yaml, metrics.jsonl, TensorBoard events, checkpoint.pt, gamma.json, trials (where epochs are chosen),
    model.safetensors, backbone.safetensors (if it was fine-tuned), classes.csv, descriptions.json (where texts describe
    the classes), data.json, results.json, class_means.safetensors, predictions.csv, accuracy.csv, confusion.csv,
    attention.png, accuracy.png, report.html.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.gamma = path / "gamma.json"
        self.trials = path / "trials"
        self.model = path / "model.safetensors"
        self.backbone = path / FILE
        self.classes = path / "classes.csv"
        self.class_means = path / "class_means.safetensors"
        self.descriptions = path / RECORD_OF_RUN
        self.data = path / "data.json"
        self.results = path / "results.json"
        self.attention_figure = path / "attention.png"
        self.accuracy_figure = path / "accuracy.png"

    def refuse_foreign(self, settings: Settings) -> None:
        """Raise `UserError` unless the folder is new, empty, or holds a run of exactly these settings."""
        if self.config.exists():
            self._refuse_other_settings(settings)
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is not empty and holds no run (no config.yaml); choose another --out"
            )

    def begin(self, settings: Settings, data: ZeroShotDataset, features: Mapping[str, Any]) -> None:
        """Make the folder. Unless the run is resumed, the files of an earlier run of the same settings are removed.

        Call this after the data set was read and checked, so that wrong input never removes a finished run.

        Args:
            features: "feature_dim" d, and "feature_dtype" if features are stored.

        Raises:
            UserError: the run to be resumed was started on other data.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if settings.run.resume and self.checkpoint.exists():
            self.refuse_other_data(data)
        if not settings.run.resume:
            for old in (
                self.descriptions, self.checkpoint, self.metrics, self.gamma, self.results, self.class_means,
            ):  # fmt: skip
                old.unlink(missing_ok=True)
            shutil.rmtree(self.trials, ignore_errors=True)
            for events in self.path.glob("events.out.tfevents.*"):
                events.unlink()
        save_settings(settings, self.config)
        self._save_classes(data)
        self._keep_record(settings, data)
        self.save_json(self.data, {"identity": data.identity(), "images": len(data.labels), **features})

    def refuse_other_data(self, data: ZeroShotDataset) -> None:
        """Raise `UserError` if these are not the images, labels, splits and descriptions of the run."""
        held = self.load_json(self.data)
        if held.get("identity") != data.identity():
            raise UserError(
                f"{self.path} was trained on other data: {held.get('images')} images then, {len(data.labels)} now; "
                "images, splits or descriptions were changed since, so its figures do not hold for them"
            )

    def _refuse_other_settings(self, settings: Settings) -> None:
        held = load_settings(self.config).decisive()
        for name, value in settings.decisive().items():
            if held.get(name) != value:
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{self.path} holds a run with {flag} {held.get(name)}, not {value}; choose another --out, "
                    "or remove the folder"
                )

    def save_model(self, model: nn.Module) -> None:
        """model.safetensors: the model's tensors, without a backbone that was not trained."""
        save_tensors(self.model, model.state_dict())

    def save_backbone(self, weights: Path) -> None:
        """backbone.safetensors: the fine-tuned weights, which the cache may lose."""
        save_tensors(self.backbone, load_tensors(weights))

    def load_model(self, model: nn.Module) -> None:
        """Load model.safetensors into a model of the same settings.

        Raises:
            UserError: the file is absent, cut short, or of another model.
        """
        tensors = load_tensors(self.model)
        try:
            model.load_state_dict(tensors)
        except (RuntimeError, TypeError) as error:
            raise UserError(f"{self.model}: {str(error).splitlines()[-1].strip()}") from None

    def _save_classes(self, data: ZeroShotDataset) -> None:
        """classes.csv, in the form that an image folder's has."""
        text = io.StringIO()
        writer = csv.writer(text)
        attributes = data.attribute_names or tuple(f"a{i}" for i in range(data.embedding_dim))
        writer.writerow(["class", "split", *attributes])
        unseen = set(data.unseen.tolist())
        for i, (name, row) in enumerate(zip(data.class_names, data.class_embeddings.tolist())):
            writer.writerow([name, "unseen" if i in unseen else "seen", *(f"{v:.9g}" for v in row)])
        write_text_atomically(self.classes, text.getvalue())

    def _keep_record(self, settings: Settings, data: ZeroShotDataset) -> None:
        """descriptions.json: the model that made the class embeddings, if `fastzsl.describe` did."""
        source = settings.data
        if source.class_embeddings not in ("att", "original_att"):
            table = Path(source.class_embeddings)
        elif source.dataset == "folder" and source.root is not None:
            table = source.root / "classes.csv"
        else:
            return
        record = read_record(table, data.attribute_names)
        if record is not None:
            self.save_json(self.descriptions, record)

    def save_json(self, path: Path, values: Mapping[str, Any]) -> None:
        write_text_atomically(path, json.dumps(values, indent=2) + "\n")

    def load_json(self, path: Path) -> dict[str, Any]:
        """Read one of the run's JSON files, an object.

        Raises:
            UserError: absent, cut short, or not an object.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no file {path}; the run is not finished") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not whole JSON ({type(error).__name__})") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}: {type(values).__name__}; wanted an object")
        return values

    def load_gamma(self) -> float:
        """The calibration that the run chose.

        Raises:
            UserError: gamma.json is absent, or holds no number.
        """
        gamma = self.load_json(self.gamma).get("gamma")
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not _finite(gamma):
            raise UserError(f"{self.gamma}: gamma is {str(gamma)[:40]!r}; wanted a finite number")
        return float(gamma)

    def load_held_out(self) -> dict[str, float]:
        """Mean figures on the held-out seen classes on which gamma was chosen; empty if the run has none.

        Raises:
            UserError: gamma.json is absent or damaged.
        """
        found = self.load_json(self.gamma).get("held_out", {})
        if not isinstance(found, dict) or not all(isinstance(v, float | int) for v in found.values()):
            raise UserError(f"{self.gamma}: held_out holds other things than numbers")
        return found

    def with_chosen(self, settings: Settings) -> Settings:
        """`settings`, with those that the run chose for its training, as gamma.json holds them.

        config.yaml holds what the run was started with; the model may be another one.

        Raises:
            UserError: gamma.json is damaged, or holds no settings of the method.
        """
        where = str(self.gamma)
        chosen, features, protocol = self.load_chosen(), settings.features, settings.protocol
        if "image_size" in chosen:
            size = {"image_size": chosen.pop("image_size")}
            features = read_group(FeatureSettings, {**vars(features), **size}, where)
            protocol = replace(protocol, choose_image_size=())
        method = read_group(type(settings.method), {**settings.method.settings(), **chosen}, where)
        return replace(settings, method=method, features=features, protocol=protocol)

    def load_chosen(self) -> dict[str, Any]:
        """The settings of the training that were chosen with gamma: name -> number or word; empty if none were.

        Raises:
            UserError: gamma.json is damaged, or holds other things.
        """
        if not self.gamma.exists():
            return {}
        chosen = self.load_json(self.gamma).get("chosen", {})
        if not isinstance(chosen, dict) or not all(map(_is_setting, chosen.values())):
            raise UserError(
                f"{self.gamma}: the chosen settings are {str(chosen)[:40]!r}; remove the file to choose again"
            )
        return dict(chosen)


def _is_setting(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) < 100
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**9


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that is too large for a float
        return False


class MetricsLog:
    """metrics.jsonl with one line for each step, and the same values in the log of the settings.

    Args:
        folder: the run.
        settings: of the run.
        last_step: lines of later steps are removed; a run that was stopped after its last checkpoint wrote them.
    """

    def __init__(self, folder: RunFolder, settings: Settings, last_step: int = 0) -> None:
        write_text_atomically(folder.metrics, "".join(_lines_until(folder.metrics, last_step)))
        self._file = open(folder.metrics, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._log = open_log(settings.run.logger, folder.path, last_step, settings.decisive())

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._log.log(step, figures)

    def close(self) -> None:
        self._file.close()
        self._log.close()


def _lines_until(metrics: Path, last_step: int) -> list[str]:
    """The complete lines of steps up to `last_step`, without a partial last line of a stopped run."""
    kept: list[str] = []
    if not metrics.exists():
        return kept
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            break
    return kept
