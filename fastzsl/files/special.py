"""Files that are no files: a FIFO or a device among one's data is refused by its kind, and never waited for."""

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
    """What `path` is if it, or what it links to, is neither file nor folder nor absent; else an empty string."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError:
        return ""


def refuse_special(path: Path, wanted: str = "a file") -> None:
    """Raise `UserError` for a FIFO, a socket or a device; reading one may never end."""
    if kind := special_kind(path):
        raise UserError(f"{path} is {kind}; wanted {wanted}")
