"""Fast zero-shot image recognition.

>>> import fastzsl
>>> attention = fastzsl.FusedDenseAttention(scale=10.0)
"""

from __future__ import annotations

import time
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# In the repository's own folder `python -m fastzsl.train` imports this source tree; the compiled module and the
# Triton kernels are then found in the installed package.
__path__ = extend_path(__path__, __name__)

from fastzsl.garbage import pause
from fastzsl.waiting import give_up_soon

pause()
give_up_soon()

import torch  # noqa: E402, F401  # so that the time measured below is without torch's own import

_began = time.perf_counter()
from fastzsl import losses, ops  # noqa: E402
from fastzsl.methods.attended import AttendedAutoencoder, FusedDenseAttention  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - _began
"""What importing this package took beyond torch's own import; `python -m fastzsl.info` prints it."""

if TYPE_CHECKING:
    from fastzsl.prediction.recogniser import load

__version__ = "0.1.0"
__all__ = ["AttendedAutoencoder", "FusedDenseAttention", "__version__", "load", "losses", "ops"]


def __getattr__(name: str) -> Any:
    # Prediction needs the training packages, which take seconds to import; the ops do without them.
    if name == "load":
        from fastzsl.prediction.recogniser import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
