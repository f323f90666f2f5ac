"""Lightning Fabric, imported without torchmetrics.

Fabric reads the version of torchmetrics if it is installed, and for that imports all of it, with scipy.signal and
transformers. That takes as long as the import of PyTorch, and nothing here uses it.
"""

from __future__ import annotations

import sys

_hidden = "torchmetrics" not in sys.modules and "lightning_fabric" not in sys.modules
if _hidden:
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]  # its import fails at once
try:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException
finally:
    if _hidden:
        del sys.modules["torchmetrics"]

__all__ = ["DDPStrategy", "Fabric", "MisconfigurationException"]
