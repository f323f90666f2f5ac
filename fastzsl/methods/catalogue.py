"""All methods: the package's own and the user's."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from fastzsl.errors import UserError, first_line, nearest
from fastzsl.methods import (
    ale,  # noqa: F401
    conse,  # noqa: F401
    dazle,  # noqa: F401
    dcn,  # noqa: F401
    devise,  # noqa: F401
    eszsl,  # noqa: F401
    f_clswgan,  # noqa: F401
    gazsl,  # noqa: F401
    joint_space,  # noqa: F401
    lesae,  # noqa: F401
    relation_net,  # noqa: F401
    sae,  # noqa: F401
    se_gzsl,  # noqa: F401
    sje,  # noqa: F401
    sse,  # noqa: F401
    sync,  # noqa: F401
)
from fastzsl.methods.attended import method as attended  # noqa: F401
from fastzsl.methods.attended import pooled  # noqa: F401
from fastzsl.methods.method import Method
from fastzsl.methods.register import METHODS

VARIABLE = "FASTZSL_METHODS"


def find_method(name: str) -> type[Method]:
    """The method class of this name.

    Raises:
        UserError: no such method.
    """
    load_user_methods()
    if name not in METHODS:
        known = list(METHODS)
        raise UserError(f"--method: there is no {name}{nearest(name, known)} (known: {', '.join(known)})")
    return METHODS[name]


def load_user_methods() -> None:
    """Import the files or modules in FASTZSL_METHODS, and the entry points `fastzsl.methods` of installed packages.

    FASTZSL_METHODS is separated as PATH is. The path of a method is never taken from a run folder, so that opening a
    run never executes a file that the user did not name.

    Raises:
        UserError: a file or module that cannot be imported.
    """
    for entry in entry_points(group="fastzsl.methods"):
        if entry.name not in METHODS:
            entry.load()
    for item in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        try:
            if item.endswith(".py"):
                _import_file(Path(item))
            else:
                importlib.import_module(item)
        except Exception as error:
            raise UserError(
                f"{VARIABLE}: {item} cannot be imported ({type(error).__name__}: {first_line(error)})"
            ) from None


def _import_file(path: Path) -> None:
    name = "fastzsl_user_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
