"""Images to region features: sources, backbones, extraction, the store."""
