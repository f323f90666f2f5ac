"""The process that reads binary files, when the user has limited memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastzsl.files import sandbox

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


def two_files(folder: Path) -> list[Path]:
    paths = []
    for value in (1, 2):
        paths.append(folder / f"{value}.h5")
        with h5py.File(paths[-1], "w") as file:
            file.create_dataset("numbers", data=np.full(100_000, value))
    return paths


def test_a_reply_that_was_not_read_to_its_end_is_not_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_files(tmp_path)
    unpack = struct.unpack

    def no_memory(*arguments: object) -> object:
        monkeypatch.setattr(sandbox.struct, "unpack", unpack)
        raise MemoryError

    reader = sandbox._Reader()
    monkeypatch.setattr(sandbox, "_reader", reader)
    monkeypatch.setattr(sandbox.struct, "unpack", no_memory)
    with pytest.raises(MemoryError):
        sandbox.read_sandboxed("hdf5", first, ["numbers"])
    found = sandbox.read_sandboxed("hdf5", second, ["numbers"])[1]["numbers"]
    assert (found == 2).all()


FORKED = """
import os, sys, threading, warnings
from pathlib import Path
from fastzsl.files import sandbox

held, done = threading.Event(), threading.Event()

def hold():
    with sandbox._reader._lock:
        held.set()
        done.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    print(sandbox.read_sandboxed("hdf5", Path(sys.argv[1]), ["numbers"])[1]["numbers"].mean(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
done.set()
"""


def test_a_fork_reads_although_a_thread_of_its_parent_was_reading(tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-c", FORKED, str(two_files(tmp_path)[0])]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1.0\n"
