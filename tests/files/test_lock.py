"""Two processes do not write into one folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastzsl.errors import UserError
from fastzsl.files.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from fastzsl.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_another_process_holds_is_refused_until_that_process_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(tmp_path):
        assert not list(tmp_path.iterdir())
