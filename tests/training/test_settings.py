"""Mistyped settings are named before anything else is said, whether they come as flags or in config.yaml."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from fastzsl.command.run_settings import parse_run_settings
from fastzsl.errors import UserError
from fastzsl.methods import METHODS
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.methods.attended.method import Attended
from fastzsl.train import train
from fastzsl.training.settings import Settings, load_settings, save_settings


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
    save_settings(Settings(), tmp_path / "config.yaml")  # a run is there
    with pytest.raises(UserError) as caught:
        train(Settings().changed(**{"accelerator": "cpu", "out": tmp_path, **settings}))
    assert message in str(caught.value)
    assert "holds a run" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data: {dataset: folderr}", "dataset is 'folderr'; wanted one of shapes, folder"),
        (
            "method: {similarity: cosin}",
            "similarity is 'cosin'; wanted one of cosine, dot; did you mean \"cosine\"?",
        ),
        ("method: {epochs: ten}", "epochs is 'ten'; wanted a whole number"),
        ("method: {epochs: 2.5}", "epochs is 2.5; wanted a whole number"),
        ("method: {epochs: }", "epochs is None; wanted a whole number"),
        ("method: {epochs: true}", "epochs is True; wanted a whole number"),
        ("method: {lr: .nan}", "--lr is nan; wanted a finite number"),
        ("method: {attention_scale: .inf}", "--attention-scale is inf; wanted a finite number"),
        ("method: {hidden: 1000000000000}", "--hidden is 1000000000000; wanted at most 1e+06"),
        ("run: {seed: 9223372036854775808}", "--seed is 9223372036854775808; wanted at most"),
        ("method: {lr: [1]}", "lr is [1]; wanted a number"),
        ("method: {coupled: maybe}", "coupled is 'maybe'; wanted true or false"),
        ("method: {coupled: 1}", "coupled is 1; wanted true or false"),
        ("data: {root: 5}", "root is 5; wanted a path"),
        ("run: {out: {a: 1}}", "out is {'a': 1}; wanted a path"),
        ("features: {backbone: [a]}", "backbone is ['a']; wanted text"),
        ("protocol: {choose_epochs: 5}", "choose_epochs is 5; wanted a list"),
        ("protocol: {choose_epochs: [a]}", "choose_epochs is 'a'; wanted a whole number"),
        ("method: {epoch: 3}", 'unknown setting epoch; did you mean "epochs"?'),
        ("method: {name: eszl}", 'there is no eszl; did you mean "eszsl"?'),
        ("method: {name: eszsl, epochs: 3}", "unknown setting epochs"),
        ("metod: {}", 'unknown group metod; did you mean "method"?'),
        ("1: 3", "unknown group 1"),
        ("method: 3", "method is int; wanted a mapping of settings"),
        ("- epochs", "the file is list; wanted a mapping of settings"),
        ("format: 3", "has format 3; this version reads 2: a newer fastzsl wrote it"),
        ("dataset: shapes", "was written by fastzsl 0.1.0; train again with this version"),
        ("[" * 5000, "not"),
    ],
)
def test_a_wrong_value_in_a_file_of_settings_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{line}\n")
    with pytest.raises(UserError) as caught:
        load_settings(file)
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
            "neither was given; wanted --attributes TABLE or --describe words",
        ),
        ("eval", "a b", "Unrecognized options: b"),
        ("predict", "run a.png --describe", "--describe has no value; leave it out, or give it one"),
        ("reproduce", "--distractors", "--distractors has no value"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], command: str, words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"fastzsl.{command}").main(words.split())
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fastzsl: error: ")
    assert printed.count("\n") == 1
    assert message in printed
    assert "│" not in printed


def test_help_is_printed_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("fastzsl.predict").main(["--help"])
    assert not caught.value.code
    assert "--heatmap" in capsys.readouterr().out


def test_help_of_a_method_shows_its_own_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for method, flag, absent in (("eszsl", "--log-gamma", "--alpha"), ("attended", "--alpha", "--log-gamma")):
        with pytest.raises(SystemExit) as caught:
            importlib.import_module("fastzsl.train").main(["--method", method, "--help"])
        assert not caught.value.code
        text = capsys.readouterr().out
        assert flag in text
        assert absent not in text


def test_help_ends_on_a_terminal_of_one_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        importlib.import_module("fastzsl.predict").main(["--help"])
    assert len(capsys.readouterr().out) < 100_000


def test_flags_of_0_1_0_for_pooling_choose_the_method() -> None:
    assert parse_run_settings(["--pooling", "average"], "p", "d").method.name == "pooled"
    assert parse_run_settings(["--pooling=attention"], "p", "d").method.name == "attended"
    with pytest.raises(UserError, match="--pooling is maximal; wanted attention or average"):
        parse_run_settings(["--pooling", "maximal"], "p", "d")


def test_a_setting_name_stands_in_one_group_only() -> None:
    for name, cls in METHODS.items():
        settings = Settings(method=cls())
        names = [f.name for g in fields(settings) for f in fields(getattr(settings, g.name))]
        assert len(set(names)) == len(names), name


def test_numbers_as_people_write_them_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "method: {lr: 1e-4, alpha: 1, epochs: 1e1}\ndata: {class_split: , root: somewhere}\n"
        "protocol: {choose_epochs: [3, 4]}\n"
    )
    settings = load_settings(file)
    method = settings.method
    assert isinstance(method, Attended)
    assert (method.lr, method.alpha, method.epochs, settings.data.class_split) == (1e-4, 1.0, 10, None)
    assert isinstance(method.epochs, int)
    assert isinstance(method.alpha, float)
    assert settings.data.root == Path("somewhere")
    assert settings.protocol.choose_epochs == (3, 4)
    save_settings(settings, file)
    assert load_settings(file) == settings


def test_the_model_alone_has_the_defaults_of_the_method() -> None:
    signature = inspect.signature(AttendedAutoencoder.__init__).parameters
    loss = inspect.signature(AttendedAutoencoder.loss).parameters
    for setting in fields(Attended):
        for parameters in (signature, loss):
            if setting.name in parameters:
                assert parameters[setting.name].default == setting.default, setting.name


def test_a_configuration_that_is_no_regular_file_is_refused_before_it_is_read() -> None:
    for path in (Path("/dev/zero"), Path("/")):
        if path.exists():
            with pytest.raises(UserError, match="is no regular file"):
                load_settings(path)
