"""The figures of a training reach the chosen log; a missing package or a refusing service is one line."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from fastzsl.errors import UserError
from fastzsl.training import loggers
from fastzsl.training.inputs import check_names
from fastzsl.training.run import MetricsLog, RunFolder
from fastzsl.training.settings import Settings


class Remembers:
    """Lightning's interface of a logger."""

    def __init__(self, **place: str) -> None:
        self.calls: list[tuple] = [("begin", place)]
        made.append(self)

    def log_hyperparams(self, settings: dict) -> None:
        if settings.get("seed") == 13:
            raise ConnectionError("no network\nand more")
        self.calls.append(("settings", settings))

    def log_metrics(self, figures: dict, step: int) -> None:
        self.calls.append((step, figures))

    def finalize(self, status: str) -> None:
        self.calls.append(("end", status))


made: list[Remembers] = []


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    module = types.ModuleType("pytorch_lightning.loggers")
    module.WandbLogger = module.MLFlowLogger = Remembers  # type: ignore[attr-defined]
    for name, held in (
        ("pytorch_lightning", types.ModuleType("pytorch_lightning")), ("pytorch_lightning.loggers", module),
        ("wandb", types.ModuleType("wandb")), ("mlflow", types.ModuleType("mlflow")),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, held)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_every_step_reaches_the_logger_and_metrics_jsonl(tmp_path: Path, lightning: None, name: str) -> None:
    folder = RunFolder(tmp_path / "birds")
    folder.path.mkdir()
    settings = Settings().changed(logger=name)
    log = MetricsLog(folder, settings)
    log(1, {"loss": 2.0})
    log(2, {"loss": 1.0})
    log.close()
    [logger] = made
    assert "birds" in logger.calls[0][1].values() or logger.calls[0][1]["run_name"] == "birds"
    assert logger.calls[1] == ("settings", settings.decisive())
    assert logger.calls[2:] == [(1, {"loss": 2.0}), (2, {"loss": 1.0}), ("end", "success")]
    lines = folder.metrics.read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [2.0, 1.0]
    assert not list(folder.path.glob("events.out.tfevents.*"))


def test_tensorboard_is_the_default(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder, Settings())
    log(1, {"loss": 2.0})
    log.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(loggers.importlib, "import_module", missing)
    with pytest.raises(
        UserError, match=rf"--logger {name} needs more packages: pip install 'fastzsl\[{name}\]'"
    ):
        check_names(Settings().changed(logger=name))


def test_a_service_that_refuses_is_one_line(tmp_path: Path, lightning: None) -> None:
    with pytest.raises(UserError, match=r"^--logger wandb: no network$"):
        loggers.open_log("wandb", tmp_path, 0, {"seed": 13})


def test_mlflow_itself_holds_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "birds").mkdir()
    log = loggers.open_log("mlflow", tmp_path / "birds", 0, {"seed": 1})
    log.log(3, {"loss": 0.5})
    log.close()
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'birds' / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("fastzsl").experiment_id])
    assert run.info.run_name == "birds"
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.params == {"seed": "1"}
