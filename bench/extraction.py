"""Feature extraction from photographs: speed with channels-last memory order and with bfloat16, and their errors.

    python -m bench.extraction DIR --backbone resnet101 [--weights random] [--images 64] [--rounds 3]

Files are read, decoded and processed by the backbone as in `python -m fastzsl.extract`. The features of every variant
are compared with those of float32 in plain memory order before its speed is printed. The error is the relative
Frobenius norm of the difference. Variants run in turn; figures are medians over the rounds and ratios within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from fastzsl.data.formats.folder import read_image
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.throughput import in_batches
from fastzsl.prediction.recogniser import list_images

LARGEST_ERROR = 0.2


class Plain(torch.nn.Module):
    """A backbone whose images and weights are in PyTorch's default memory order, channels first."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.contiguous_format)
        self.preprocess = backbone.preprocess

    def forward(self, pixels: Tensor) -> Tensor:
        own = self.backbone
        return own._features(((pixels.float() / 255 - own.mean) / own.std).contiguous())


def extract(backbone: Backbone | Plain, paths: list[Path]) -> Tensor:
    batches = in_batches(
        paths, lambda path: (None, backbone.preprocess(read_image(path))), lambda x: backbone(x).float(),
        32, torch.device("cpu"),
    )  # fmt: skip
    return torch.cat([maps for _, maps in batches if maps is not None])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = list_images(options.folder)
    paths = [found[i] for i in torch.linspace(0, len(found) - 1, options.images).int()]
    variants: dict[str, Backbone | Plain] = {
        "float32, channels first": Plain(load_backbone(options.backbone, options.weights)),
        "float32": load_backbone(options.backbone, options.weights),
        "bfloat16": load_backbone(options.backbone, options.weights),
    }
    variants["bfloat16"].trunk.to(torch.bfloat16)  # type: ignore[union-attr, operator]
    truth = extract(variants["float32, channels first"], paths)
    errors = {}
    for name, backbone in variants.items():
        maps = extract(backbone, paths)
        errors[name] = float((maps - truth).norm() / truth.norm())
        assert errors[name] < LARGEST_ERROR, f"{name}: features differ by {errors[name]}"
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(options.rounds):
        for name in names[turn % 3 :] + names[: turn % 3]:
            start = time.perf_counter()
            extract(variants[name], paths)
            seconds[name].append(time.perf_counter() - start)
    print(f"{options.backbone}, {len(paths)} images, {torch.get_num_threads()} threads")
    for name in names:
        rate = len(paths) / statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds["float32"], seconds[name]))
        print(f"{name:24} {rate:6.1f} images/s, {ratio:.2f} × float32, error {errors[name]:.4f}")


if __name__ == "__main__":
    main()
