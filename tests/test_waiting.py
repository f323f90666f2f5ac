"""Commands ask OpenMP for short waits; a user's own program keeps its setting."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastzsl.waiting import SPINS, _is_command


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("python -m fastzsl.train --epochs 1", True),
        ("python -P -W error -m fastzsl", True),
        ("python /usr/bin/fastzsl train", True),
        ("python -m pytest", False),
        ("python my_script.py -m fastzsl.train", False),
        ("python -c pass", False),
        ("python", False),
    ],
)
def test_a_command_is_known_by_its_words(words: str, answer: bool) -> None:
    assert _is_command(words.split()) is answer


@pytest.mark.parametrize(
    ("chosen", "found"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_it_is_set_before_pytorch_unless_the_user_chose(
    chosen: dict[str, str], found: str | None, tmp_path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\natexit.register(lambda: print('spins', os.environ.get('GOMP_SPINCOUNT')))\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-m", "fastzsl.train", "--help"],
        env=clean | chosen | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == f"spins {found}", done.stderr


def test_a_program_that_imports_the_package_keeps_its_setting() -> None:
    clean = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    program = "import os, fastzsl; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert done.stdout.strip() == "None", done.stderr
