"""These tests need TRITON_INTERPRET=1 before Triton is imported: test_triton_interpreter.py runs them so."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for triton_checks

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
