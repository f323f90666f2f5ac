"""Image towers of image-text models: their tokens as regions in the space that images and texts share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastzsl.clip import open_image_text, require_open_clip
from fastzsl.errors import UserError

PREFIX = "open_clip/"


def split_name(name: str) -> tuple[str, str | None]:
    """(model, tag of its published weights or None) of `open_clip/MODEL` or `open_clip/MODEL.TAG`."""
    model, dot, tag = name.removeprefix(PREFIX).partition(".")
    return model, tag if dot else None


def image_tower(name: str, weights: str | None, image_size: int | None) -> tuple[nn.Module, Any]:
    """The image tower of a model, whose maps `tower_maps` computes, and open_clip's preprocessing of its images.

    Raises:
        UserError: as `open_image_text`, no weights or two of them, or a tower of an unknown kind.
    """
    model, tag = split_name(name)
    if tag and weights not in (None, "random"):
        raise UserError(
            f'backbone "{name}" names its weights, and --backbone-weights others; wanted one of them'
        )
    if not tag and not weights:
        raise UserError(
            f'backbone "{name}" needs weights: {name}.TAG for published ones, or --backbone-weights FILE.safetensors '
            "of the whole image-text model"
        )
    tower = open_image_text(model, "random" if weights == "random" else tag or weights, image_size)[0].visual
    if not hasattr(tower, "forward_intermediates"):
        raise UserError(f'backbone "{name}" has an image tower that gives no tokens; wanted another model')
    return tower, require_open_clip().get_model_preprocess_cfg(tower)


def tower_maps(tower: Any, images: Tensor) -> Tensor:
    """Feature maps (B, k, h, w) whose mean over the regions is the image's embedding e (B, k).

    The last layer's tokens v_t go through the projection that makes e of the class token, as in MaskCLIP (Zhou et al.,
    ECCV 2022): x_t = P v_t - mean_t P v_t + e. So methods that read pooled features score as the image-text model
    itself does, and attention sees how the regions differ.

    Args:
        tower: of open_clip: a vision transformer, one of timm, or a residual network with attention pooling.
        images: (B, 3, H, W), normalised.

    Raises:
        UserError: the tokens have another size than the embedding, and the projection is not known.
    """
    found = tower.forward_intermediates(images, indices=1, normalize_intermediates=True)
    embedding: Tensor = found["image_features"]
    tokens: Tensor = found["image_intermediates"][-1].movedim(1, -1)  # (B, h, w, width)
    if getattr(tower, "proj", None) is not None:
        tokens = tokens @ tower.proj
    elif hasattr(tower, "attnpool"):
        tokens = tower.attnpool.c_proj(tower.attnpool.v_proj(tokens))
    elif hasattr(tower, "head"):
        tokens = tower.head(tokens)
        own = tower.trunk.get_classifier()  # of timm, where the projection is part of its model
        if isinstance(own, nn.Linear) and own.in_features == tokens.shape[-1]:
            tokens = own(tokens)
    if tokens.shape[-1] != embedding.shape[-1]:
        raise UserError(
            f"the image tower has tokens of size {tokens.shape[-1]} and embeddings of size {embedding.shape[-1]}; "
            "its projection is not known here"
        )
    tokens = tokens - tokens.mean((1, 2), keepdim=True) + embedding[:, None, None]
    return tokens.movedim(-1, 1)
