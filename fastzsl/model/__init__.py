"""The paper's model: encoder, fused attention, decoder."""

from fastzsl.model.attention import FusedDenseAttention
from fastzsl.model.autoencoder import AttendedAutoencoder
from fastzsl.model.encoder import SemanticEncoder

__all__ = ["AttendedAutoencoder", "FusedDenseAttention", "SemanticEncoder"]
