"""The paper's method: Li and Wang, "Joint Learning of Attended Zero-Shot Features and Visual-Semantic Mapping"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fastzsl.features.batch import read_batch
from fastzsl.features.stored import Stored
from fastzsl.methods.attended.autoencoder import AttendedAutoencoder
from fastzsl.methods.context import Context
from fastzsl.methods.engines.loop import minimise
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import Method
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings

SAMPLE, IMAGE_SAMPLE = 512, 64
"""Number of training images on which the scaling is fitted; fewer if a backbone must run on them."""


@register
@dataclass(frozen=True)
class Attended(Method):
    """The paper's model: every class attends to the regions of the image with its own query.

    Args:
        hidden: size of the encoder's hidden sigmoid layer.
        query_length: length given to every query; 0 changes nothing (for experiments on alpha).
        similarity: measure s between decoded feature and class embedding.
        temperature: factor on the scores in the classification loss.
        attention_scale: factor on the attention's logits; 0 averages all regions, a large factor selects one.
        coupled: the decoder is also the visual-semantic mapping (equation 7).
        embedding_normalisation: of the class embeddings, fitted on the seen classes: "centre" subtracts their
            mean (word vectors need it), "whiten" also makes the directions in which they differ more alike (sentences
            gain by it), "standardise" also divides every attribute by its deviation, "range" makes it run from 0 to 1;
            these and "unit" give each class unit length, "none" leaves the numbers.
        reduce_embeddings: express the class embeddings by their coordinates in the space that they span, if m is at
            least four times its dimension: sentence embeddings of few classes, not attributes.
        alpha: weight of the manifold alignment loss (equation 5).
        eta: weight of the semantic reconstruction loss (equation 6).
        reduction: of the two losses above: "mean", or "sum" as the paper prints them.
        reconstruct: classes of the semantic reconstruction: "all" as in the paper, which reads the unseen
            classes' descriptions (not their images) in training, or "seen" if unseen classes are not known in advance.
        feature_power: exponent on the features' absolute values; 0.5 reduces the influence of dominant channels, 1
            changes nothing.
        feature_dropout: share of feature channels dropped in training.
        region_dropout: share of regions dropped in training.
        epochs: passes over the training images, at whose end the learning rate is 0.
        batch_size: images in a step, over all devices.
        lr: highest learning rate; it warms up and decays along a cosine.
        weight_decay: of AdamW, times the learning rate: 1 keeps a long training from fitting the seen classes only.
        train_backbone: train the backbone too, on images instead of cached features.
        backbone_lr: learning rate of the backbone if it is trained.
        backend: backend of the fused ops.
    """

    name: ClassVar[str] = "attended"
    label: ClassVar[str] = "Ours"
    reads: ClassVar[Literal["regions", "pooled"]] = "regions"
    version: ClassVar[int] = 3
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gentle": {
            "lr": 1e-3,
            "temperature": 20.0,
            "epochs": 20,
            "eta": 0.3,
            "attention_scale": 3.0,
            "feature_dropout": 0.7,
            "embedding_normalisation": "whiten",
        },
        "words": {
            "hidden": 1024,
            "epochs": 20,
            "eta": 0.3,
            "attention_scale": 3.0,
            "feature_dropout": 0.8,
        },
    }
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_normalisation": ("centre", "whiten"),
        "alpha": (0.0, 0.005, 0.02, 0.1, 0.5),
        "eta": (0.0, 0.3, 1.0, 3.0),
        "attention_scale": (3.0, 10.0, 30.0),
        "temperature": (5.0, 10.0, 20.0),
        "epochs": (15, 30, 60),
    }

    hidden: int = 512
    query_length: float = 0.0
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = 10.0
    attention_scale: float = 10.0
    coupled: bool = True
    embedding_normalisation: Normalisation = "centre"
    reduce_embeddings: bool = True
    alpha: float = 0.02
    eta: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    reconstruct: Literal["all", "seen"] = "all"
    feature_power: float = 0.5
    feature_dropout: float = 0.4
    region_dropout: float = 0.5
    epochs: int = 30
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 1.0
    train_backbone: bool = False
    backbone_lr: float = 1e-5
    backend: Literal["auto", "eager", "native", "triton"] = "auto"

    model: ClassVar[type[AttendedAutoencoder]] = AttendedAutoencoder

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("hidden", "temperature", "feature_power", "epochs", "batch_size", "lr"),
            not_negative=("query_length", "attention_scale", "alpha", "eta", "weight_decay", "backbone_lr"),
            shares=("feature_dropout", "region_dropout"),
            largest={"hidden": 1_000_000, "attention_scale": 1e30, "temperature": 1e30},
        )

    @property
    def descriptions(self) -> Literal["seen", "all"]:
        return "all" if self.eta and self.reconstruct == "all" else "seen"

    @property
    def trains_backbone(self) -> bool:
        return self.train_backbone

    @property
    def has_idle_parameters(self) -> bool:
        # A trunk may have layers that it does not use.
        return self.train_backbone or not (self.coupled or self.eta)

    def build(
        self, feature_dim: int, embedding_dim: int, backbone: nn.Module | None = None
    ) -> AttendedAutoencoder:
        return self.model(
            feature_dim,
            embedding_dim,
            hidden=self.hidden,
            query_length=self.query_length,
            similarity=self.similarity,
            temperature=self.temperature,
            attention_scale=self.attention_scale,
            coupled=self.coupled,
            feature_power=self.feature_power,
            feature_dropout=self.feature_dropout,
            region_dropout=self.region_dropout,
            embedding_normalisation=self.embedding_normalisation,
            backbone=backbone,
            backend=self.backend,
        )

    def fit(self, model: AttendedAutoencoder, problem: Problem, context: Context) -> None:  # type: ignore[override]
        """Minimise equation 7 with AdamW."""
        self._fit_scaling(model, problem)
        if self.descriptions == "all":
            descriptions, seen = problem.all_descriptions, problem.seen
        else:
            descriptions, seen = problem.seen_descriptions, torch.arange(problem.num_classes)
        objective = _Objective(model, self, descriptions.to(context.device), seen.to(context.device))
        if self.reduce_embeddings:
            with torch.random.fork_rng():
                torch.manual_seed(context.seed)
                model.fit_span(descriptions)
        optimizer = torch.optim.AdamW(self._groups(model), weight_decay=self.weight_decay, fused=True)
        minimise(
            model, objective, optimizer, _reader(model, problem), problem.labels, context,
            epochs=self.epochs, batch_size=self.batch_size,
        )  # fmt: skip

    def _groups(self, model: AttendedAutoencoder) -> list[dict[str, Any]]:
        own = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
        groups: list[dict[str, Any]] = [{"params": own, "lr": self.lr}]
        if model.backbone is not None:
            groups.append({"params": list(model.backbone.parameters()), "lr": self.backbone_lr})
        return groups

    def _fit_scaling(self, model: AttendedAutoencoder, problem: Problem) -> None:
        sample = torch.linspace(0, len(problem) - 1, min(SAMPLE, len(problem))).long()
        if model.backbone is not None:
            with torch.no_grad():
                images = read_batch(problem.image, sample[:IMAGE_SAMPLE], model.backbone)
                regions = model.backbone(images).flatten(2).transpose(1, 2)
        else:
            regions = problem.regions(sample)
        model.fit_scaling(regions, problem.seen_descriptions)


class _Objective(nn.Module):
    """Equation 7 as the forward pass of a module, so that Fabric's precision and DDP apply to it."""

    def __init__(
        self, model: AttendedAutoencoder, method: Attended, descriptions: Tensor, seen: Tensor
    ) -> None:
        super().__init__()
        self.model, self.method = model, method
        self.descriptions, self.seen = descriptions, seen

    def forward(self, inputs: Tensor | Stored, labels: Tensor, part: BatchPart) -> dict[str, Tensor]:
        """As `AttendedAutoencoder.loss`; the classification loss is weighted by the part of the batch."""
        terms = self.model.loss(
            inputs, self.seen[labels], self.descriptions, self.seen,
            alpha=self.method.alpha, eta=self.method.eta, reduction=self.method.reduction, part=part,
        )  # fmt: skip
        if part.weight == 1:
            return terms
        classification = part.weight * terms["classification"]
        loss = terms["loss"] - terms["classification"] + classification
        return {**terms, "classification": classification, "loss": loss}


def _reader(model: AttendedAutoencoder, problem: Problem) -> Any:
    """Indices of training images -> images if the backbone is trained, else stored regions of a drawn view."""
    backbone = model.backbone
    if backbone is not None:
        return lambda indices, draw: read_batch(problem.image, indices, backbone)
    return problem.stored
