"""Feature extraction from photographs: the speed of the engines and of bfloat16, and their errors.

    python -m bench.extraction DIR --backbone resnet101 [--weights random] [--images 64] [--rounds 3]

Files are read, decoded and processed by the backbone as in `python -m fastzsl.extract`. The features of every variant
are compared with those of the unchanged PyTorch module in float32 before its speed is printed. The error is the
relative Frobenius norm of the difference. Variants run in turn; figures are medians over the rounds and ratios within a
round. OpenVINO is left out if it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from fastzsl.allocator import keep_freed_memory
from fastzsl.data.formats.folder import read_image
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.engines import FrozenMaps, choose_engine, frozen
from fastzsl.features.throughput import in_batches
from fastzsl.prediction.recogniser import list_images

LARGEST_ERROR = 0.2


def extract(backbone: Backbone, maps_of: FrozenMaps, paths: list[Path]) -> Tensor:
    batches = in_batches(
        paths, lambda path: (None, backbone.preprocess(read_image(path))), lambda x: maps_of(x).float(),
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
    keep_freed_memory()  # as every command does
    found = list_images(options.folder)
    paths = [found[i] for i in torch.linspace(0, len(found) - 1, options.images).int()]
    backbone = load_backbone(options.backbone, options.weights)
    small = load_backbone(options.backbone, options.weights)
    small.trunk.to(torch.bfloat16)  # type: ignore[call-overload]
    variants: dict[str, FrozenMaps] = {
        "module": backbone,
        "torch": frozen(backbone),
        "torch, bfloat16": small,
    }
    if choose_engine("auto", "cpu") == "openvino":
        backbone.engine = "openvino"
        variants["openvino"] = frozen(backbone)
    truth = extract(backbone, variants["module"], paths)
    errors = {}
    for name, maps_of in variants.items():
        maps = extract(backbone, maps_of, paths)
        errors[name] = float((maps - truth).norm() / truth.norm())
        assert errors[name] < LARGEST_ERROR, f"{name}: features differ by {errors[name]}"
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            extract(backbone, variants[name], paths)
            seconds[name].append(time.perf_counter() - start)
    print(f"{options.backbone}, {len(paths)} images, {torch.get_num_threads()} threads")
    for name in names:
        rate = len(paths) / statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds["module"], seconds[name]))
        print(f"{name:24} {rate:6.1f} images/s, {ratio:.2f} × the module, error {errors[name]:.1e}")


if __name__ == "__main__":
    main()
