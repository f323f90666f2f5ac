"""These tests need TRITON_INTERPRET=1 before Triton is imported: test_triton_interpreter.py runs them so."""

import os
import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[2] / "ops"),
]  # triton_checks, cancelling

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
