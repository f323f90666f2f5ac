"""`python -m fastzsl.extract`: the images of a data set through a backbone into one HDF5 file."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from fastzsl.command.console import open_console, progress_bars
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.data.find import Sources, find_dataset
from fastzsl.data.formats.embeddings import read_attribute_vectors
from fastzsl.data.formats.hdf5 import dataset_arrays
from fastzsl.data.formats.xlsa17 import KNOWN, original_attributes
from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.features.engines import Engine, choose_engine
from fastzsl.features.sharded_extraction import extract_share
from fastzsl.features.writer import partial_path

DESCRIPTION = """Extract feature maps once, for training and for other programs.

The file follows the convention of the dense-attention papers: feature_map (N, d, h, w), labels, trainval_loc,
test_seen_loc, test_unseen_loc, att, original_att, counted from 0. If the command is stopped, run it again to continue.
`torchrun --nproc-per-node=N -m fastzsl.extract ...` divides the work among processes. Train on the file with
`python -m fastzsl.train --dataset hdf5 --features FILE`.
"""


@dataclass(frozen=True)
class Settings:
    """What to extract.

    Args:
        dataset: "folder" is your own images; "awa1" to "flo" are the benchmarks (aPY's are parts of
            images and cannot be extracted).
        out: the file to make.
        root: of "folder": ROOT/images/<class>/* and ROOT/classes.csv; of a benchmark: what xlsa17.zip unpacks
            to.
        images: folder of a benchmark's images.
        backbone: efficientnet_lite0 (weights come with pip), any torchvision name, or timm/NAME.
        backbone_weights: file with the backbone's weights, or "random"; default: the published ones.
        image_size: side of the square images that the backbone gets, in pixels; default: that of its weights. Twice
            the side gives four times the regions.
        engine: "openvino" is 2 to 3 times as fast as "torch" on the CPU and needs `pip install 'fastzsl[openvino]'`;
            "auto" uses it if it is installed.
        precision: type in which the backbone computes; bfloat16 is faster if the processor has units for it, and
            changes the features by a few percent.
        dtype: type of the stored features; the papers' own programs do not convert them and need float32.
        batch_size: images in a step of the backbone.
        device: "cpu", "cuda" or "mps"; default: a GPU if there is one.
        class_embeddings: what is stored as att: "att", "original_att", or a .csv, .npz or .mat file.
        attribute_vectors: file with a word vector for each attribute, stored as w2v_att, which the papers' own
            programs read; a .csv, .npz or .mat file as for class_embeddings, with attributes for classes.
        skip_bad_images: leave out images of "folder" that cannot be read, instead of stopping.
        data_seed: classes, images and splits of "shapes"; split of the seen images of "folder".
        distractors: other objects in each image of "shapes".
    """

    dataset: Literal["shapes", "folder", "awa1", "awa2", "cub", "sun", "apy", "flo"]
    out: Path
    root: Path | None = None
    images: Path | None = None
    backbone: str = "efficientnet_lite0"
    backbone_weights: str | None = None
    image_size: int | None = None
    engine: Engine = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: int = 32
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    class_embeddings: str = "att"
    attribute_vectors: Path | None = None
    skip_bad_images: bool = False
    data_seed: int = 0
    distractors: int = 2

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}; wanted a number above 0")
        for name in ("data_seed", "distractors"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; wanted 0 or more")
        if self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder; wanted the name of a file")
        if self.dataset in KNOWN and self.images is None:
            raise UserError(f"--dataset {self.dataset} needs --images DIR, the folder of its images")


def extract(settings: Settings, console: Console | None = None) -> Path:
    """Make the file, or finish it. Returns its path.

    Raises:
        UserError: anything wrong with data set, backbone, images or the file in its place.
    """
    console = console or open_console()
    data = find_dataset(Sources(**{k: getattr(settings, k) for k in Sources._fields if hasattr(settings, k)}))
    assert data.images is not None, "every data set of this command has images"
    backbone = load_backbone(settings.backbone, settings.backbone_weights, settings.image_size)
    if settings.precision == "bfloat16":
        backbone.trunk.to(torch.bfloat16)
    device = _device(settings.device)
    backbone.engine = choose_engine(settings.engine, device, next(backbone.trunk.parameters()).dtype)
    original = None
    if settings.dataset in KNOWN and settings.root is not None:
        original = original_attributes(settings.dataset, settings.root)
    vectors = None
    if settings.attribute_vectors is not None:
        vectors = read_attribute_vectors(settings.attribute_vectors, data.attribute_names, data.embedding_dim)
    if partial_path(settings.out).exists():
        console.print(f"going on with {partial_path(settings.out)}", highlight=False)
    with progress_bars(console) as progress:
        task = progress.add_task("features", total=len(data.images))
        rate = Rate()

        def hear(images: int) -> None:
            speed = rate(images)
            words = f"features, {speed:.1f} images/s" if speed else "features"
            progress.update(task, advance=images, description=words)

        rank, world = _place()
        extract_share(
            data.images,
            backbone,
            settings.out,
            rank=rank,
            world=world,
            fingerprint=data.fingerprint,
            weights=settings.backbone_weights,
            dtype=settings.dtype,
            arrays=dataset_arrays(data, original, vectors),
            batch_size=settings.batch_size,
            device=device,
            progress=hear,
        )
        progress.update(task, completed=len(data.images))
    if rank == 0:
        console.print(
            f"{settings.out}: feature maps of {len(data.images)} images{rate.words()}", highlight=False
        )
    return settings.out


class Rate:
    """Images per second, without the first batch and without the images of an earlier run."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._images, self._last = 0, 0.0

    def __call__(self, images: int) -> float:
        now = time.perf_counter()
        if self._start is None:
            self._start = now
            return 0.0
        self._images += images
        self._last = self._images / (now - self._start)
        return self._last

    def words(self) -> str:
        return f", {self._last:.1f} images/s" if self._last else ""


def _place() -> tuple[int, int]:
    """The number of this process and the number of processes, from torchrun's environment variables."""
    if not torch.distributed.is_torchelastic_launched():
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def _device(name: str) -> str:
    if name != "auto":
        if name != "cpu" and not getattr(torch, name).is_available():
            raise UserError(f"--device {name}: PyTorch finds none on this machine")
        return name
    return "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    extract(parse(Settings, arguments, "python -m fastzsl.extract", DESCRIPTION))


if __name__ == "__main__":
    main()
