"""Zero-shot image recognition that is fast.

>>> import fastzsl
>>> attention = fastzsl.FusedDenseAttention(scale=10.0)
"""

from fastzsl import losses, ops
from fastzsl.model import AttendedAutoencoder, FusedDenseAttention

__version__ = "0.1.0"
__all__ = ["AttendedAutoencoder", "FusedDenseAttention", "__version__", "losses", "ops"]
