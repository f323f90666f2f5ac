"""GAZSL: a Wasserstein GAN whose synthetic class means are pulled to the real ones; the nearest features vote.

Zhu, Elhoseiny, Liu, Peng and Elgammal, "A Generative Adversarial Approach for Zero-Shot Learning from Noisy Texts",
CVPR 2018. Sizes and settings follow the authors' public script for attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.alternate import alternate
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.synthesis import SynthesisModel
from fastzsl.methods.engines.wgan import (
    PENALTY,
    AdversarialLosses,
    Generator,
    gradient_penalty,
    hidden_layer_slopes,
    normal,
    uniform,
    xavier_weights,
)
from fastzsl.methods.method import ClassSet, Method, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops.linear import Linear

SLOPE = 0.01
ADAM = (0.5, 0.9)
WEIGHT_PENALTY = 1e-3


class GAZSLModel(SynthesisModel):
    """Generator of scaled features; the `neighbours` nearest synthetic ones vote for their classes.

    Args:
        hidden: size of the generator's hidden layer.
        neighbours: votes.
    """

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        noise_dim: int,
        hidden: int,
        neighbours: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, noise_dim, **kwargs)
        self.neighbours = neighbours
        self.generator = Generator(noise_dim, embedding_dim, hidden, feature_dim, slope=SLOPE, output="tanh")
        xavier_weights(self.generator)

    def generate(self, noise: Tensor, descriptions: Tensor) -> Tensor:
        features: Tensor = self.generator(noise, descriptions)
        return features

    def fit_scorer(self, classes: ClassSet) -> Scorer:
        made = F.normalize(self.synthesise(classes.descriptions), dim=2)
        return lambda features: vote(
            F.normalize(self.scaling(features.to(made)), dim=1), made, self.neighbours
        )


def vote(features: Tensor, made: Tensor, neighbours: int) -> Tensor:
    """The share of each class among the nearest synthetic features; between equal shares the mean cosine decides.

    Args:
        features: (B, d) unit rows.
        made: (C, n, d) unit rows.
        neighbours: number of nearest features that vote; all C n if there are fewer.

    Returns:
        (B, C): votes / neighbours + (1 + mean cosine) / (4 · neighbours), which is less than a vote.
    """
    classes, each, _ = made.shape
    cosines = features @ made.flatten(0, 1).mT
    neighbours = min(neighbours, classes * each)
    nearest = cosines.topk(neighbours, dim=1).indices // each
    votes = torch.zeros(len(features), classes, device=features.device)
    votes.scatter_add_(1, nearest, torch.ones_like(nearest, dtype=votes.dtype))
    mean = cosines.view(-1, classes, each).mean(2)
    return (votes + (1 + mean) / 4) / neighbours


class Critic(nn.Module):
    """One hidden layer with two heads: D(x) and the logits of the seen classes. It does not get the class embedding.

    Args:
        feature_dim, hidden, num_classes: d, size of the hidden layer, C_s.
    """

    def __init__(self, feature_dim: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.first = Linear(feature_dim, hidden)
        self.judge, self.classify = nn.Linear(hidden, 1), Linear(hidden, num_classes)
        xavier_weights(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, d) -> D (B,) and logits (B, C_s)."""
        hidden = self.first(features).relu()
        return self.judge(hidden)[:, 0], self.classify(hidden)

    def slopes(self, features: Tensor) -> Tensor:
        """The gradient of D with respect to x (B, d), differentiable in the weights."""
        with torch.no_grad():
            inner = self.first(features)
        return hidden_layer_slopes(inner, self.first.weight, self.judge.weight, 0.0)


def pivot_distance(made: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """1 / C_s · sum over the classes of |mean of the class's synthetic features - real mean|.

    Args:
        made: (B, d).
        labels: (B,); a class that is absent contributes 0.
        means: (C_s, d).
    """
    present, place, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(present), made.shape[1], dtype=made.dtype, device=made.device)
    own = sums.index_add(0, place, made) / counts[:, None]
    return (own - means[present]).norm(dim=1).sum() / len(means)


class GAZSLLosses(AdversarialLosses):
    """Generator and critic with their losses, on scaled features.

    Args:
        generator, critic: the networks.
        features: (N, d) scaled.
        labels: (N,).
        embeddings: (C_s, m) normalised.
        pivot: weight of the pivot distance.
    """

    betas = ADAM
    critic: Critic

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        features: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        pivot: float,
    ) -> None:
        super().__init__(generator, critic)
        self.features, self.labels, self.embeddings, self.pivot = features, labels, embeddings, pivot
        sums = torch.zeros(len(embeddings), features.shape[1], device=features.device)
        self.means = sums.index_add(0, labels, features) / torch.bincount(labels)[:, None]

    def _make(self, images: Tensor, random: torch.Generator) -> Tensor:
        described = self.embeddings[self.labels[images]]
        made: Tensor = self.generator(
            normal((len(images), self.generator.noise_dim), random, described), described
        )
        return made

    def of_critic(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """-E D(x) + E D(x~) + cross-entropies of both + 10 E (|grad D(x^)| - 1)²."""
        real, labels = self.features[images], self.labels[images]
        with torch.no_grad():
            fake = self._make(images, random)
        judged, logits = self.critic(torch.cat([real, fake]))
        wrong = 2 * F.cross_entropy(logits, labels.repeat(2))
        share = uniform(len(images), random, real)
        penalty = gradient_penalty(self.critic.slopes, real, fake, share)
        found = judged.view(2, -1).mean(1)
        distance = found[0] - found[1]
        return {"loss": PENALTY * penalty + wrong - distance, "distance": distance, "penalty": penalty}

    def of_generator(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """-E D(x~) + 1/2 cross-entropy + pivot distance + penalty on the weights."""
        fake, labels = self._make(images, random), self.labels[images]
        judged, logits = self.critic(fake)
        wrong = F.cross_entropy(logits, labels)
        pivots = pivot_distance(fake, labels, self.means)
        weights = self.generator.first.weight.square().sum() + self.generator.second.weight.square().sum()
        loss = 0.5 * wrong - judged.mean() + self.pivot * pivots + WEIGHT_PENALTY * weights
        return {"loss": loss, "classification": wrong, "pivots": pivots}


@register
@dataclass(frozen=True)
class GAZSL(Method):
    """GAZSL. A generator G(z, a) against a critic D that also classifies, with x~ = G(z, a_y):

        D: -E D(x) + E D(x~) + CE(x, y) + CE(x~, y) + 10 E (|grad D(x^)| - 1)²
        G: -E D(x~) + CE(x~, y) / 2 + pivot / C_s · sum_c |mean of x~ of class c - mean of x of class c|
           + 0.001 |weights of G|²

    For a set of classes, seen or not, `synthetic` features are made for each; the `neighbours` nearest ones by cosine
    vote. The score is the share of the votes; where it is equal, the class's mean cosine decides.

    Args:
        feature_norm: scaling of the features; the generator's outputs are between -1 and 1.
        embedding_normalisation: of the class embeddings.
        hidden: size of both hidden layers; 4096 is published.
        noise: size of z; 100 (CUB, FLO) and 10 (AwA, aPY, SUN) are published.
        steps: updates of the generator; the critic has five for each.
        batch_size: images in a turn; 1024 is published.
        lr: of Adam, for both sides.
        pivot: weight of the distance between synthetic and real class means; 5 for attributes, 1 for text.
        synthetic: features made for each class.
        neighbours: how many of them vote.
    """

    name: ClassVar[str] = "gazsl"
    label: ClassVar[str] = "GAZSL"
    version: ClassVar[int] = 2
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "pivot": (1.0, 5.0, 25.0),
        "neighbours": (5, 20, 60),
        "steps": (250, 1000, 3000),
        "lr": (1e-4, 5e-4),
    }
    budget: ClassVar[Mapping[str, Any]] = {"hidden": 512, "batch_size": 256, "steps": 250, "lr": 5e-4}

    feature_norm: FeatureNorm = "minmax"
    embedding_normalisation: Normalisation = "unit"
    hidden: int = 4096
    noise: int = 100
    steps: int = 3000
    batch_size: int = 1024
    lr: float = 1e-4
    pivot: float = 5.0
    synthetic: int = 60
    neighbours: int = 20

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("hidden", "noise", "steps", "batch_size", "lr", "synthetic", "neighbours"),
            not_negative=("pivot",),
            largest={"hidden": 1_000_000, "noise": 1_000_000, "synthetic": 1_000_000},
        )

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> GAZSLModel:
        return GAZSLModel(
            feature_dim, embedding_dim, self.noise, self.hidden, self.neighbours,
            feature_norm=self.feature_norm, embedding_normalisation=self.embedding_normalisation,
            synthetic=self.synthetic,
        )  # fmt: skip

    def fit(self, model: GAZSLModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        features, labels, embeddings = model.fit_scales(problem, context)
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            critic = Critic(features.shape[1], self.hidden, len(embeddings)).to(features.device)
        losses = GAZSLLosses(model.generator, critic, features, labels, embeddings, self.pivot)
        alternate(
            losses.players(self.lr), len(features), context,
            {"generator": model.generator, "critic": critic}, steps=self.steps, batch_size=self.batch_size,
        )  # fmt: skip
