"""The conditions of a measurement: processor, instruction set and threads, and its date and versions."""

from __future__ import annotations

import platform
import re
from datetime import date
from pathlib import Path

import torch

from fastzsl import _native

Facts = dict[str, str | int]


def processor() -> str:
    """The processor's name as the system gives it, with family and model if they are known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {k.strip(): v.strip() for k, v in values.items()}
        return f"{fields['model name']}, family {fields['cpu family']} model {fields['model']}"
    except (OSError, KeyError, ValueError):
        return platform.processor() or platform.machine()


def machine() -> Facts:
    """The conditions that must be equal for times in one table."""
    return {"processor": processor(), "isa": _native.isa(), "threads": torch.get_num_threads()}


def slug(of: Facts) -> str:
    """The machine as the name of a file: "amd-epyc-family-25-model-17-avx2-2-threads"."""
    name = re.sub(r"\((r|tm|c)\)", "", f"{of['processor']} {of['isa']} {of['threads']} threads".lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def conditions(shared: bool) -> Facts:
    """Versions, clock and date of one measurement."""
    clock = "processor time of the thread, on a machine busy with other work" if shared else "wall clock"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "clock": clock,
        "date": date.today().isoformat(),
    }
