"""f-CLSWGAN: a conditional Wasserstein GAN makes features of the unseen classes, and a softmax classifies them.

Xian, Lorenz, Schiele and Akata, "Feature Generating Networks for Zero-Shot Learning", CVPR 2018. Sizes and settings
follow the authors' scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.alternate import alternate
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.softmax import LinearSoftmax, fit_softmax_by_adam
from fastzsl.methods.engines.synthesis import FinalSoftmax, SynthesisThenSoftmax
from fastzsl.methods.engines.wgan import (
    PENALTY,
    AdversarialLosses,
    Generator,
    gradient_penalty,
    hidden_layer_slopes,
    normal,
    normal_weights,
    uniform,
)
from fastzsl.methods.method import Method
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops.linear import Linear

SLOPE = 0.2
ADAM = (0.5, 0.999)
DEVIATION = 0.02
FROZEN_EPOCHS, FROZEN_BATCH, FROZEN_LR = 50, 100, 1e-3
FINAL = FinalSoftmax(epochs=25, lr=1e-3)


class FClsWganModel(SynthesisThenSoftmax):
    """Generator of scaled features, with the real features.

    Args:
        hidden: size of the generator's hidden layer.
    """

    def __init__(
        self, feature_dim: int, embedding_dim: int, noise_dim: int, hidden: int, **kwargs: Any
    ) -> None:
        super().__init__(feature_dim, embedding_dim, noise_dim, final=FINAL, **kwargs)
        self.generator = Generator(noise_dim, embedding_dim, hidden, feature_dim, slope=SLOPE, output="relu")
        normal_weights(self.generator, DEVIATION)

    def generate(self, noise: Tensor, descriptions: Tensor) -> Tensor:
        features: Tensor = self.generator(noise, descriptions)
        return features


class Critic(nn.Module):
    """D(x, a) = w' LeakyReLU(W [x; a] + b) + c.

    W [x; a] = W_x x + W_a a, so that W_a a is computed once for the real, the synthetic and the mixed features.

    Args:
        feature_dim, embedding_dim, hidden: d, m, and the size of the hidden layer.
    """

    def __init__(self, feature_dim: int, embedding_dim: int, hidden: int) -> None:
        super().__init__()
        self.of_features = Linear(feature_dim, hidden)
        self.of_description = Linear(embedding_dim, hidden, bias=False)
        self.last = nn.Linear(hidden, 1)
        self.between = nn.LeakyReLU(SLOPE)
        normal_weights(self, DEVIATION)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """x (B, d) and W_a a (B, hidden) -> D (B,)."""
        found: Tensor = self.last(self.between(self.of_features(features) + condition))
        return found[:, 0]

    def slopes(self, features: Tensor, condition: Tensor) -> Tensor:
        """The gradient of D with respect to x (B, d), differentiable in the weights."""
        with torch.no_grad():
            inner = self.of_features(features) + condition
        return hidden_layer_slopes(inner, self.of_features.weight, self.last.weight, SLOPE)


class FClsWganLosses(AdversarialLosses):
    """Generator and critic with their losses, on scaled features.

    Args:
        generator, critic: the networks.
        frozen: softmax over the seen classes, trained before and never changed.
        features: (N, d) scaled.
        labels: (N,).
        embeddings: (C_s, m) normalised.
        beta: weight of the classification loss.
    """

    betas = ADAM
    critic: Critic

    def __init__(
        self,
        generator: Generator,
        critic: Critic,
        frozen: LinearSoftmax,
        features: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        beta: float,
    ) -> None:
        super().__init__(generator, critic)
        self.frozen = frozen
        self.features, self.labels, self.embeddings, self.beta = features, labels, embeddings, beta

    def of_critic(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """-E D(x, a) + E D(x~, a) + 10 E (|grad D(x^, a)| - 1)²."""
        real, described = self.features[images], self.embeddings[self.labels[images]]
        noise = normal((len(images), self.generator.noise_dim), random, real)
        with torch.no_grad():
            fake = self.generator(noise, described)
        condition = self.critic.of_description(described)
        found = self.critic(torch.cat([real, fake]), condition.repeat(2, 1)).view(2, -1).mean(1)
        penalty = gradient_penalty(
            lambda x: self.critic.slopes(x, condition), real, fake, uniform(len(images), random, real)
        )
        distance = found[0] - found[1]
        return {"loss": PENALTY * penalty - distance, "distance": distance, "penalty": penalty}

    def of_generator(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """-E D(x~, a) + beta · cross-entropy of the frozen softmax on x~."""
        labels = self.labels[images]
        described = self.embeddings[labels]
        noise = normal((len(images), self.generator.noise_dim), random, described)
        fake = self.generator(noise, described)
        found = self.critic(fake, self.critic.of_description(described)).mean()
        wrong = nn.functional.cross_entropy(self.frozen.logits(fake), labels)
        return {"loss": self.beta * wrong - found, "classification": wrong}


@register
@dataclass(frozen=True)
class FClsWgan(Method):
    """f-CLSWGAN. A generator G(z, a) imitates the features of the class with embedding a. A critic D judges them:

        D: -E D(x, a) + E D(x~, a) + 10 E (|grad D(x^, a)| - 1)²,     x~ = G(z, a),  x^ between x and x~
        G: -E D(x~, a) + beta · E[-log p(y | x~)],                    p a softmax of the seen classes, frozen

    Then a softmax is fitted to the real features of the seen and synthetic ones of the unseen classes; for a set of
    unseen classes alone to synthetic ones only. How many are synthesised for a class against how many are real is
    the method's own calibration, and the published figures add no gamma (columns U0, S0, H0). The scores are
    log-probabilities.

    Args:
        feature_norm: scaling of the features; the generator's outputs are 0 or more.
        embedding_normalisation: of the class embeddings.
        hidden: size of both hidden layers; 4096 is published.
        noise: size of z, 0 for that of a class embedding, as published.
        epochs: passes; in each step the critic sees 5 batches and the generator 1, N / batch_size steps a pass.
        batch_size: images in a turn.
        lr: of Adam, for both sides.
        beta: weight of the classification loss.
        synthetic: features made for each class without images.
    """

    name: ClassVar[str] = "f-clswgan"
    label: ClassVar[str] = "f-CLSWGAN"
    version: ClassVar[int] = 2
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "synthetic": (100, 300, 1200),
        "beta": (0.01, 0.1, 1.0),
        "epochs": (15, 30, 60),
    }
    budget: ClassVar[Mapping[str, Any]] = {"hidden": 1024, "noise": 128, "epochs": 20, "lr": 2e-4}

    feature_norm: FeatureNorm = "minmax"
    embedding_normalisation: Normalisation = "unit"
    hidden: int = 4096
    noise: int = 0
    epochs: int = 60
    batch_size: int = 64
    lr: float = 1e-4
    beta: float = 0.1
    synthetic: int = 300

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("hidden", "epochs", "batch_size", "lr", "synthetic"),
            not_negative=("noise", "beta"),
            largest={"hidden": 1_000_000, "noise": 1_000_000, "synthetic": 1_000_000},
        )

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> FClsWganModel:
        return FClsWganModel(
            feature_dim, embedding_dim, self.noise or embedding_dim, self.hidden,
            feature_norm=self.feature_norm, embedding_normalisation=self.embedding_normalisation,
            synthetic=self.synthetic,
        )  # fmt: skip

    def fit(self, model: FClsWganModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        features, labels, embeddings = model.fit_scales(problem, context)

        def train() -> dict[str, Tensor]:
            self._play(model.generator, features, labels, embeddings, context)
            return {k: v.clone() for k, v in model.generator.state_dict().items()}

        model.generator.load_state_dict(problem.cached(f"{self._training()} {context.seed}", train))
        model.keep_real(features, labels)

    def _training(self) -> str:
        """Everything that decides the generator; a search over `synthetic` trains it only once."""
        return str({k: v for k, v in {"method": self.name, **self.settings()}.items() if k != "synthetic"})

    def _play(
        self, generator: Generator, features: Tensor, labels: Tensor, embeddings: Tensor, context: Context
    ) -> None:
        frozen = fit_softmax_by_adam(
            features, labels, len(embeddings), epochs=FROZEN_EPOCHS, batch_size=FROZEN_BATCH, lr=FROZEN_LR,
            betas=ADAM, seed=context.seed,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            critic = Critic(features.shape[1], embeddings.shape[1], self.hidden).to(features.device)
        losses = FClsWganLosses(generator, critic, frozen, features, labels, embeddings, self.beta)
        alternate(
            losses.players(self.lr), len(features), context, {"generator": generator, "critic": critic},
            steps=self.epochs * -(-len(features) // self.batch_size), batch_size=self.batch_size,
        )  # fmt: skip
