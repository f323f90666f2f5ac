"""The garbage collector in commands, and in programs that import the package."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fastzsl import garbage
from fastzsl.command.exits import exits_with_message


@pytest.fixture
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["python", "-m", "fastzsl.train", "--epochs", "3"], True),
        (["python", "-P", "-W", "error", "-m", "fastzsl"], True),
        (["/usr/bin/python", "/usr/bin/fastzsl", "train"], True),
        (["python", "-m", "pytest", "-m", "fastzsl.train"], False),
        (["python", "mine.py", "fastzsl"], False),
        (["python", "mine.py", "-m", "fastzsl.train"], False),
        (["python", "-X", "dev", "mine.py", "-m", "fastzsl"], False),
        (["python", "-X", "dev", "-Im", "fastzsl.train"], True),
        (["python", "-c", "import fastzsl", "-m", "fastzsl"], False),
        (["python", "-c"], False),
        (["python"], False),
    ],
)
def test_what_is_a_command(words: list[str], command: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", words)
    assert garbage.is_command() == command


@pytest.mark.parametrize("command", [True, False])
def test_a_command_collects_what_it_makes_itself(
    command: bool, monkeypatch: pytest.MonkeyPatch, unfrozen: None
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "fastzsl.train" if command else "other"])
    before = gc.get_freeze_count()
    garbage.pause()
    assert gc.isenabled() == (not command)

    @exits_with_message
    def main() -> None:
        assert gc.isenabled()
        assert (gc.get_freeze_count() > before) == command
        circle: list[object] = []
        circle.append(circle)
        del circle
        assert gc.collect() > 0

    main()
    assert gc.isenabled()
    assert (gc.get_freeze_count() > before) == command


def test_importing_the_package_leaves_the_collector_alone() -> None:
    code = "import gc, fastzsl, fastzsl.train; assert gc.isenabled(); assert not gc.get_freeze_count()"
    subprocess.run([sys.executable, "-c", code], check=True)
