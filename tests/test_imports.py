"""Imports run one way: from the entry points down to the kernels, without a circle, also inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import fastzsl

PACKAGE = Path(fastzsl.__file__).parent

FLOORS = (
    ("errors", "allocator", "garbage", "processors", "fabric", "chatter", "waiting"),
    ("files", "ops", "losses", "distributed", "clip"),
    ("features", "text"),
    ("data",),
    ("methods",),
    ("training",),
    ("protocol",),
    ("experiments", "report", "prediction", "portable"),
    ("command", "server"),
    (
        "train",
        "eval",
        "predict",
        "describe",
        "export",
        "serve",
        "extract",
        "download",
        "make_dataset",
        "tune",
        "reproduce",
        "info",
    ),
    ("__main__",),
)
"""Rooms from the ground up. A room imports of lower floors, and of its own floor as `SAME_FLOOR` says."""

SAME_FLOOR = {
    "losses": {"ops"},
    "distributed": {"ops"},
    "experiments": {"report"},
    "portable": {"prediction"},
}

ENTRY_POINTS = FLOORS[-2]


def modules() -> dict[str, Path]:
    """Every module of the package by its name below `fastzsl`, kernels apart, which lie elsewhere."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] == "kernels" or "__pycache__" in parts:
            continue
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path
    return found


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the package, wherever in the file the import stands."""
    edges: dict[str, set[str]] = defaultdict(set)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in targets:
                if target.split(".")[0] != "fastzsl":
                    continue
                below = target.removeprefix("fastzsl").removeprefix(".")
                while below and below not in known:
                    below = below.rpartition(".")[0]
                if below and below != name:
                    edges[name].add(below)
    return edges


def room(module: str) -> str:
    return module.split(".")[0]


def floor(name: str) -> int | None:
    return next((i for i, rooms in enumerate(FLOORS) if name in rooms), None)


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in modules()} - {"", "_native"}
    assert rooms == {name for rooms in FLOORS for name in rooms}


def test_rooms_import_of_lower_floors_only() -> None:
    wrong = []
    for module, targets in imports(modules()).items():
        here = floor(room(module))
        if here is None:  # the package itself: it offers what users call
            continue
        for target in targets:
            there = floor(room(target))
            assert there is not None, target
            if room(module) == room(target) or room(target) in SAME_FLOOR.get(room(module), ()):
                continue
            if there >= here:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(imports(modules())).prepare()
    except CycleError as error:
        raise AssertionError("a circle: " + " <- ".join(error.args[1])) from None


def test_entry_points_import_no_entry_point() -> None:
    for module, targets in imports(modules()).items():
        if room(module) in ENTRY_POINTS:
            assert not {room(t) for t in targets} & set(ENTRY_POINTS), module


def test_the_train_command_imports_no_torchmetrics() -> None:
    """Lightning Fabric would import it, with scipy.signal and more, to read its version."""
    code = (
        "import sys, fastzsl.train; print([m for m in ('torchmetrics', 'scipy.signal') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
