"""Special files: a FIFO, a socket or a device among the data is refused, because reading one may never end."""

from __future__ import annotations

import stat
from pathlib import Path

from fastzsl.errors import UserError

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: Path) -> str:
    """The kind of special file that `path` is or links to; empty for a file, a folder or an absent path."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError:
        return ""


def refuse_special(path: Path, wanted: str = "a file") -> None:
    """Raise `UserError` for a FIFO, a socket or a device; reading one may never end."""
    if kind := special_kind(path):
        raise UserError(f"{path} is {kind}; wanted {wanted}")
