"""The paper's model: encoder, fused attention, decoder."""

from fastzsl.methods.attended.attention import FusedDenseAttention
from fastzsl.methods.attended.autoencoder import AttendedAutoencoder
from fastzsl.methods.attended.encoder import SemanticEncoder

__all__ = ["AttendedAutoencoder", "FusedDenseAttention", "SemanticEncoder"]
