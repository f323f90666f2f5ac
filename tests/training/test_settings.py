"""Mistyped settings are named before anything else is said, whether they come as flags or in config.yaml."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fastzsl.errors import UserError
from fastzsl.train import train
from fastzsl.training.config import Config, load_config, save_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet11"}, 'unknown backbone "resnet11"; did you mean'),
        ({"backbone": "timm/resnet_18"}, 'unknown backbone "timm/resnet_18"; did you mean'),
        ({"backbone_weights": "randm"}, "--backbone-weights: no file randm"),
        (
            {"class_embeddings": "orginal_att"},
            "--class-embeddings: no file orginal_att; wanted att, original_att",
        ),
        ({"dataset": "folder", "root": Path("nowhere")}, "--root: no folder nowhere"),
        ({"dataset": "cub", "root": Path(), "images": Path("nowhere")}, "--images: no folder nowhere"),
        ({"dataset": "hdf5", "features": Path("nothing.h5")}, "--features: no file nothing.h5"),
        ({"accelerator": "cuda:7"}, "--accelerator cuda:7"),
    ],
)
def test_a_mistyped_value_is_named_before_a_run_of_other_settings(
    tmp_path: Path, settings: dict, message: str
) -> None:
    save_config(Config(), tmp_path / "config.yaml")  # a run is there
    with pytest.raises(UserError) as caught:
        train(Config(**{"accelerator": "cpu", "out": tmp_path, **settings}))
    assert message in str(caught.value)
    assert "holds a run" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dataset: folderr", "dataset is 'folderr'; wanted one of shapes, folder"),
        (
            "pooling: averag",
            "pooling is 'averag'; wanted one of attention, average; did you mean \"average\"?",
        ),
        ("epochs: ten", "epochs is 'ten'; wanted a whole number"),
        ("epochs: 2.5", "epochs is 2.5; wanted a whole number"),
        ("epochs:", "epochs is None; wanted a whole number"),
        ("epochs: true", "epochs is True; wanted a whole number"),
        ("lr: .nan", "--lr is nan; wanted a number above 0"),
        ("lr: [1]", "lr is [1]; wanted a number"),
        ("coupled: maybe", "coupled is 'maybe'; wanted true or false"),
        ("coupled: 1", "coupled is 1; wanted true or false"),
        ("root: 5", "root is 5; wanted a path"),
        ("out: {a: 1}", "out is {'a': 1}; wanted a path"),
        ("backbone: [a]", "backbone is ['a']; wanted text"),
        ("choose_epochs: 5", "choose_epochs is 5; wanted a list"),
        ("choose_epochs: [a]", "choose_epochs is 'a'; wanted a whole number"),
        ("epoch: 3", 'unknown setting epoch; did you mean "epochs"?'),
        ("1: 3", "unknown setting 1"),
        ("- epochs", "wanted a mapping of settings, found list"),
    ],
)
def test_a_wrong_value_in_a_file_of_settings_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{line}\n")
    with pytest.raises(UserError) as caught:
        load_config(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", "--epoch 3", "Unrecognized options: --epoch, 3; perhaps you meant --"),
        ("train", "--epochs ten", "--epochs: invalid literal for int() with base 10: 'ten'"),
        (
            "train",
            "--dataset shape",
            "invalid choice 'shape' for argument '--dataset'. Expected one of ('shapes',",
        ),
        ("train", "--lr", "Missing value for argument '--lr'"),
        ("train", "--config nowhere.yaml", "no file nowhere.yaml"),
        ("extract", "", "--out PATH (python -m fastzsl.extract --help)"),
        ("predict", "", "Missing from python -m fastzsl.predict: PATH"),
        ("download", "imagenet --root d", "invalid choice 'imagenet' for argument 'name'"),
        (
            "make_dataset",
            "--images a --out c",
            "Missing from python -m fastzsl.make_dataset: --attributes PATH",
        ),
        ("eval", "a b", "Unrecognized options: b"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], command: str, words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"fastzsl.{command}").main(words.split())
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("fastzsl: error: ")
    assert said.count("\n") == 1
    assert message in said
    assert "│" not in said


def test_help_is_printed_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("fastzsl.predict").main(["--help"])
    assert not caught.value.code
    assert "--heatmap" in capsys.readouterr().out


def test_numbers_as_people_write_them_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("lr: 1e-4\nalpha: 1\nepochs: 1e1\nclass_split:\nroot: somewhere\nchoose_epochs: [3, 4]\n")
    config = load_config(file)
    assert (config.lr, config.alpha, config.epochs, config.class_split) == (1e-4, 1.0, 10, None)
    assert isinstance(config.epochs, int)
    assert isinstance(config.alpha, float)
    assert config.root == Path("somewhere")
    assert config.choose_epochs == (3, 4)
    save_config(config, file)
    assert load_config(file) == config
