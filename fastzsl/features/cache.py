"""The folder of feature files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """FASTZSL_CACHE, or fastzsl in the user's cache folder."""
    if own := os.environ.get("FASTZSL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastzsl"
