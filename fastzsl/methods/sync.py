"""SynC: the classifier of a new class is a weighted mean of base classifiers of the seen classes.

Changpinyo, Chao, Gong and Sha, "Synthesized classifiers for zero-shot learning", CVPR 2016, and "Classifier and
exemplar synthesis for zero-shot learning", IJCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.lbfgs import minimise_by_lbfgs
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledMethod, ScaledModel
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.whitening import Whitened, mean_square, whitened
from fastzsl.methods.method import ClassSet, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings

Loss = Literal["ovo", "cs", "struct"]
STEPS = 200
TOLERANCE = 1e-5
SMALLEST = 1e-6
"""Singular values of the similarities below this share of the largest count as zero; with them V would be noise."""


class Synthesized(ScaledModel):
    """Base classifiers V (C_s, d), one for each phantom class b_r = a_r.

    Args:
        kappa: how fast the weight of a phantom class falls with its distance.
        others: as `ScaledModel`.
    """

    phantoms: Tensor
    bases: Tensor
    unit: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
        kappa: float,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.kappa = kappa
        self.register_buffer("unit", torch.ones(()))
        self.register_fitted("phantoms", "bases")

    def similarities(self, embeddings: Tensor) -> Tensor:
        """s_cr (C, C_s) of normalised class embeddings (C, m); rows sum to 1."""
        distances = pairwise(embeddings, self.phantoms.to(embeddings)) / self.unit.to(embeddings)
        return (-self.kappa * distances.square()).softmax(1)

    def classifier(self, classes: ClassSet) -> Scorer:
        embeddings = self.describe(classes.descriptions.to(self.bases)).double()
        weights = (self.similarities(embeddings) @ self.bases.double()).to(self.bases)
        return lambda features: self.scaling(features.to(weights)) @ weights.mT


@register
@dataclass(frozen=True)
class SynC(ScaledMethod):
    """SynC. Every class's linear classifier is a mean of base classifiers v_r, one for each seen class r:

        w_c = sum_r s_cr v_r,    s_cr = exp(-kappa |a_c - a_r|²) / sum_r' exp(-kappa |a_c - a_r'|²),    score = x' w_c

    with class embeddings divided by the median distance of two seen classes. Minimises the loss of the seen classes'
    classifiers + penalty / 2 · sum_c |w_c|². The minimum is found over W, and V = S^-1 W.

    Args:
        feature_norm, embedding_normalisation: scalings of features and class embeddings.
        log_penalty: log10 of the weight on |W|² / 2, in units of the mean squared length of the scaled features.
        log_kappa: log2 of kappa.
        loss: "ovo", squared hinge of each class against all others, a mean over images and classes; "cs", the hinge of
            the worst class (Crammer and Singer); "struct", the same with margin |a_c - a_y|.
    """

    name: ClassVar[str] = "sync"
    label: ClassVar[str] = "SynC"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "loss": ("ovo", "struct"),
        "log_penalty": (-4.0, -3.0, -2.0),
        "log_kappa": (-6.0, -4.0, -2.0, 0.0, 2.0),
    }
    full_grid: ClassVar[bool] = True

    log_penalty: float = -3.0
    log_kappa: float = -2.0
    loss: Loss = "struct"

    def __post_init__(self) -> None:
        check_settings(self, largest={"log_kappa": 500.0})

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> Synthesized:
        return Synthesized(
            feature_dim, embedding_dim, self.feature_norm, self.embedding_normalisation, 2.0**self.log_kappa
        )

    def fit(self, model: Synthesized, problem: Problem, context: Context) -> None:  # type: ignore[override]
        data = model.fit_scales(problem, context)
        model.phantoms = data.descriptions
        distances = pairwise(data.descriptions.double(), data.descriptions.double())
        model.unit = median_distance(distances).to(model.unit)

        def train() -> Tensor:
            penalty = 10.0**self.log_penalty * mean_square(data.features)
            curvature = 2 / problem.num_classes if self.loss == "ovo" else 1 / problem.num_classes
            white = whitened(model, problem, context, penalty, curvature)
            return train_classifiers(white, data.labels, self.loss, (distances / model.unit).float())

        scales = model.scales if self.loss == "struct" else f"{model.scaling.how} features"
        name = f"SynC's {self.loss}, {scales}, penalty {self.log_penalty} on {context.device}"
        classifiers = problem.cached(name, train)
        inverse = torch.linalg.pinv(model.similarities(data.descriptions.double()), rtol=SMALLEST)
        model.bases = (inverse @ classifiers.double()).to(classifiers)


def pairwise(first: Tensor, second: Tensor) -> Tensor:
    """Distances of rows, computed so that equal rows have distance 0 exactly."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def median_distance(distances: Tensor) -> Tensor:
    """Median of the distances (C_s, C_s) that are not zero; 1 if all are."""
    positive = distances[distances > 0]
    return positive.median() if len(positive) else torch.ones((), dtype=distances.dtype)


def train_classifiers(white: Whitened, labels: Tensor, loss: Loss, distances: Tensor) -> Tensor:
    """W (C_s, d), the minimum of the loss plus the penalty.

    Args:
        white: training features.
        labels: (N,).
        distances: (C_s, C_s) of the scaled class embeddings.
    """
    features, penalties, back = white
    start = features.new_zeros(len(distances), features.shape[1])
    margins = distances if loss == "struct" else 1 - torch.eye(len(distances)).to(distances)

    def loss_and_gradient(at: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (weight,) = at
        scores = features @ weight.mT
        value, slopes = one_vs_others(scores, labels) if loss == "ovo" else worst(scores, labels, margins)
        pull = penalties * weight
        return value + 0.5 * (pull * weight).sum(), torch.addmm(pull, slopes.mT, features)

    (found,) = minimise_by_lbfgs([start], loss_and_gradient, steps=STEPS, tolerance=TOLERANCE)
    return found @ back


def one_vs_others(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over images and classes of max(0, 1 - t s)², t = 1 for the image's class and -1 else; its derivative."""
    signs = torch.full_like(scores, -1.0).scatter_(1, labels[:, None], 1.0)
    short = (1 - signs * scores).clamp_min(0)
    return short.square().mean(), short * signs * (-2 / scores.numel())


def worst(scores: Tensor, labels: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over images of max_c (margin_yc + s_c) - s_y, not negative as margin_yy = 0; a subgradient."""
    own = labels[:, None]
    value, place = (scores + margins[labels]).max(1, keepdim=True)
    slopes = torch.zeros_like(scores).scatter_(1, place, 1.0)
    slopes.scatter_add_(1, own, torch.full_like(value, -1.0))
    return (value - scores.gather(1, own)).mean(), slopes / len(scores)
