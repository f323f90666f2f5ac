"""The process that reads binary files, when the user has limited memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")

READ = """
import resource, sys
from pathlib import Path
from fastzsl.errors import UserError
from fastzsl.files import sandbox
limit = int(sys.argv[2])
first = sandbox._reader._running()  # started before the limit, because its imports need memory too
resource.prlimit(first.pid, resource.RLIMIT_AS, (limit, limit))
try:
    print(sandbox.read_sandboxed("hdf5", Path(sys.argv[1]), ["numbers"])[1]["numbers"].sum())
except UserError as error:
    print(error)
"""


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("numbers", data=np.ones(1 << 26, dtype=np.uint8), compression="gzip")
    return tmp_path / "f.h5"


def read(path: Path, limit: int) -> str:
    words = [sys.executable, "-P", "-c", READ, str(path), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_a_lower_limit_of_the_user_stays_and_files_are_read(numbers: Path) -> None:
    assert int(read(numbers, 3 << 30)) == 1 << 26


def test_too_little_memory_is_not_called_damage(numbers: Path) -> None:
    said = read(numbers, 1 << 20)
    assert "memory" in said
    assert "damaged" not in said
