"""Features of a backbone that was fine-tuned on the training images of the very problem that they are for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.find import read_or_extract
from fastzsl.errors import UserError, first_line
from fastzsl.fabric import Fabric
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.batch import read_batch
from fastzsl.features.cache import cache_folder
from fastzsl.features.extraction import weights_name
from fastzsl.features.side_by_side import SideBySide
from fastzsl.features.sources import ImageSource, RegionSource
from fastzsl.features.views import VIEWS
from fastzsl.files.tensors import load_tensors, save_tensors
from fastzsl.methods.context import Context
from fastzsl.methods.engines.loop import minimise
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.problem import Problem
from fastzsl.training.settings import FeatureSettings

VERSION = 1
"""Raised with every change below that changes the weights."""
FROZEN = 0.5
"""The first half of a trunk's tensors stay: edges and textures are the same for every class."""
LR, LR_OF_CLASSIFIER, WEIGHT_DECAY = 3e-4, 3e-3, 0.01
BATCH_SIZE = 32
SMOOTHING = 0.1
"""Of the labels: without it the weights go on growing when every training image is recognised."""
DROPOUT = 0.2
SMALLEST_SIDE = 0.75
"""Of a random part of an image, as a share of the image's side."""
FILE = "backbone.safetensors"


class FinetunedFeatures:
    """Makes features of all images by a backbone that was fine-tuned on a problem's training images.

    A problem of held-out classes has a backbone of its own, which has not seen these classes. With the backbone of all
    seen classes they would be recognised too well, and gamma and every other choice would be wrong.

    It holds images and no labels. Weights and features are cached.

    Args:
        settings: the backbone and `finetune_epochs`.
        images, fingerprint: of the data set.
        device: where the backbone is trained and works.
        progress: shows a line for each fine-tuning and each extraction.
    """

    def __init__(
        self,
        settings: FeatureSettings,
        images: ImageSource,
        fingerprint: str,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._settings, self._images, self._fingerprint = settings, images, fingerprint
        self._device, self._progress = device, progress
        self._made: dict[Path, tuple[RegionSource, ...]] = {}

    def __call__(self, problem: ZeroShotDataset) -> tuple[RegionSource, ...]:
        """Features of all images, a source for each view.

        Args:
            problem: of these images; the backbone is fine-tuned on its training images and reads no other.

        Raises:
            UserError: a fault of the training or the extraction.
        """
        path = self.weights(problem)
        if path not in self._made:
            self._made[path] = self._make(problem, path)
        return self._made[path]

    def weights(self, problem: ZeroShotDataset) -> Path:
        """The file of the fine-tuned weights. Its folder is named after everything that decides them."""
        settings, rows = self._settings, problem.trainval
        made = {
            "version": VERSION,
            "images": self._fingerprint,
            "backbone": settings.backbone,
            "weights": weights_name(settings.backbone_weights),
            "image_size": settings.image_size,
            "epochs": settings.finetune_epochs,
            "device": self._device.type,
            "image_ids": problem.image_ids[rows].tolist(),
            "labels": problem.labels[rows].unique(return_inverse=True)[1].tolist(),
        }
        key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        return cache_folder() / "finetuned" / key / FILE

    def _make(self, problem: ZeroShotDataset, path: Path) -> tuple[RegionSource, ...]:
        settings, progress = self._settings, self._progress
        backbone = load_backbone(settings.backbone, settings.backbone_weights, settings.image_size)
        if path.exists():
            load_trunk(backbone, path)
        else:
            self._tune(backbone, Problem(problem))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, backbone.trunk.state_dict())
        task = progress.add_task("features", total=len(self._images) * len(VIEWS[settings.views]))
        return tuple(
            read_or_extract(
                self._images, self._fingerprint, backbone, str(path), settings.engine, settings.views,
                self._device, lambda images: progress.advance(task, images),
            )
        )  # fmt: skip

    def _tune(self, backbone: Backbone, problem: Problem) -> None:
        task = self._progress.add_task("fine-tuning", total=None)

        def listener(step: int, total: int, figures: Mapping[str, float]) -> None:
            words = f"fine-tuning, loss {figures['loss']:.3f}"
            self._progress.update(task, completed=step, total=total, description=words)

        fabric = Fabric(accelerator="cpu" if self._device.type == "cpu" else "auto", devices=1)
        context = Context(fabric, listener=listener)
        finetune(backbone.to(self._device), problem, self._settings.finetune_epochs, context)


def finetune(backbone: Backbone, problem: Problem, epochs: int, context: Context) -> None:
    """Train the second half of a backbone's tensors, in place, to tell the training classes apart.

    Minimises the cross entropy of a linear classifier of the pooled features, on a random part of each image, mirrored
    or not. Batch statistics stay, and so do the tensors of the first half.

    Args:
        backbone: on the context's device.
        epochs: passes over the training images.

    Raises:
        UserError: an image cannot be read, or the loss is not finite.
    """
    classifier = nn.Linear(backbone.feature_dim, problem.num_classes, device=context.device)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    objective = _Objective(backbone, classifier)
    wanted = {name: p.requires_grad for name, p in backbone.named_parameters()}
    trained = list(_second_halves(backbone.trunk))
    backbone.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    groups = [{"params": trained, "lr": LR}, {"params": classifier.parameters(), "lr": LR_OF_CLASSIFIER}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    minimise(
        objective, objective, optimizer, lambda indices, draw: _read(problem, backbone, indices, draw),
        problem.labels, context, epochs=epochs, batch_size=BATCH_SIZE,
    )  # fmt: skip
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(wanted[name])


def load_trunk(backbone: Backbone, path: Path) -> None:
    """Load weights that were fine-tuned into a backbone of the same name.

    Raises:
        UserError: no such file, a damaged one, or one of another backbone.
    """
    try:
        backbone.trunk.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise UserError(f"{path}: not the weights of {backbone.name} ({first_line(error)})") from None


class _Objective(nn.Module):
    """Cross entropy of the pooled features' classes, as `minimise` takes it."""

    def __init__(self, backbone: Backbone, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, images: Tensor, labels: Tensor, part: BatchPart) -> dict[str, Tensor]:
        pooled = dropout(self.backbone(images).mean((2, 3)), DROPOUT)
        loss = cross_entropy(self.classifier(pooled), labels, label_smoothing=SMOOTHING)
        return {"loss": part.weight * loss}


def _second_halves(trunk: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that are trained, of each of the backbones."""
    for one in trunk.backbones if isinstance(trunk, SideBySide) else [trunk]:
        parameters = list(one.parameters())
        yield from parameters[int(FROZEN * len(parameters)) :]


def _read(problem: Problem, backbone: Backbone, indices: Tensor, draw: int) -> Tensor:
    """A random part of each training image, as the backbone takes it."""
    numbers = torch.rand(len(indices), 5, generator=torch.Generator().manual_seed(draw)).tolist()
    own = dict(zip(indices.tolist(), numbers))
    return read_batch(lambda index: random_part(problem.image(index), own[index]), indices, backbone)


def random_part(image: Image.Image, numbers: Sequence[float]) -> Image.Image:
    """A part of an image, perhaps mirrored.

    Args:
        numbers: five in [0, 1): width, height, left, top, and whether it is mirrored.
    """
    wide, high, left, top, mirror = numbers
    width, height = (
        max(1, round((SMALLEST_SIDE + (1 - SMALLEST_SIDE) * share) * side))
        for share, side in zip((wide, high), image.size)
    )
    x, y = int(left * (image.width - width + 1)), int(top * (image.height - height + 1))
    part = image.crop((x, y, x + width, y + height))
    return ImageOps.mirror(part) if mirror < 0.5 else part
