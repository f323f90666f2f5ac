"""The command line of a run. --method is read first, because it decides which flags exist, then --config and flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import tyro
import yaml

from fastzsl.command.parsing import run_parser, words_of
from fastzsl.errors import UserError, nearest
from fastzsl.methods.catalogue import METHODS, find_method, load_user_methods
from fastzsl.training.settings import Settings, load_settings
from fastzsl.training.values import plain_value

PATHS = ("root", "images", "features", "out")


def parse_run_settings(arguments: list[str] | None, prog: str, description: str) -> Settings:
    """The settings of a run; `--help` shows those of the chosen method.

    Raises:
        UserError: a wrong flag, value, method or configuration file.
    """
    load_user_methods()
    first, words = _first_flags(words_of(arguments))
    settings = load_settings(Path(first.config)) if first.config else Settings()
    if first.pooling not in (None, "average", "attention"):
        raise UserError(f"--pooling is {first.pooling}; wanted attention or average")
    name = first.method or {"average": "pooled", "attention": "attended"}.get(first.pooling)
    if name and name != settings.method.name:
        settings = Settings(
            settings.data, settings.features, find_method(name)(), settings.protocol, settings.run
        )
    description += (
        f"\n\n--method NAME chooses among {', '.join(METHODS)}; --help then shows its settings. "
        "--config FILE takes the settings from a run's config.yaml; flags override it."
    )
    kind, default = _flat_form(settings)
    parsed = run_parser(kind, words, prog, description, default)
    return Settings(**{f.name: getattr(parsed, f.name) for f in fields(Settings)})


def base_settings(file: Path | None, method: str | None, assignments: Sequence[str]) -> Settings:
    """Settings that an experiment starts from: defaults or a file, a method, and NAME=VALUE on top.

    Raises:
        UserError: an unknown setting, or a value that the setting does not take.
    """
    settings = load_settings(file) if file else Settings()
    if method and method != settings.method.name:
        settings = Settings(
            settings.data, settings.features, find_method(method)(), settings.protocol, settings.run
        )
    changes: dict[str, Any] = {}
    for item in assignments:
        name, sign, value = item.partition("=")
        if not sign:
            raise UserError(f"--set {item}: wanted NAME=VALUE")
        if name in PATHS:
            raise UserError(f"--set {item}: give --{name} itself")
        try:
            group = getattr(settings, settings.group_of(name))
        except UserError:
            known = [f.name for g in fields(settings) for f in fields(getattr(settings, g.name))]
            raise UserError(f"--set {item}: wanted NAME=VALUE{nearest(name, known)}") from None
        changes[name] = plain_value(
            read_value(value, item), get_type_hints(type(group))[name], f"--set {name}"
        )
    return settings.changed(**changes, out=None, resume=False)


def read_value(text: str, item: str) -> Any:
    """A value typed on the command line, as YAML reads it.

    Raises:
        UserError: not a value; `item` is named.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UserError(f"{item}: {text} is not a value") from None


def _first_flags(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", help="the config.yaml of a run")
    parser.add_argument("--method")
    parser.add_argument("--pooling")  # of 0.1.0; average pooling is the method "pooled"
    try:
        return parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name} needs a value") from None


def _flat_form(settings: Settings) -> tuple[Any, Any]:
    """A dataclass like `Settings` with the chosen method's class as its method, so that the fields become flags."""
    groups = {f.name: getattr(settings, f.name) for f in fields(settings)}
    kind = make_dataclass(
        "RunSettings",
        [(name, type(value), field(default_factory=type(value))) for name, value in groups.items()],
        frozen=True,
    )
    return tyro.conf.OmitArgPrefixes[kind], kind(**groups)  # type: ignore[misc, valid-type]
