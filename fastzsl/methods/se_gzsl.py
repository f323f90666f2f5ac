"""SE-GZSL: a conditional variational autoencoder; a regressor must recover the class embedding from its features.

Verma, Arora, Mishra and Rai, "Generalized Zero-Shot Learning via Synthesized Examples", CVPR 2018. Written from memory
of the paper, for which there is no public code; sizes and weights of the terms are not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.alternate import Player, alternate, player
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.synthesis import FinalSoftmax, SynthesisThenSoftmax
from fastzsl.methods.engines.wgan import normal
from fastzsl.methods.method import Method
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops.linear import Linear

FINAL = FinalSoftmax(epochs=25, lr=1e-3)


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    found: list[nn.Module] = []
    for before, after in pairwise(sizes):
        found += [Linear(before, after), nn.ReLU()]
    return nn.Sequential(*found[:-1])


class SEGZSLModel(SynthesisThenSoftmax):
    """Decoder G(z, a) of scaled features, with the real features.

    Args:
        narrow, wide: sizes of the decoder's two hidden layers, in this order.
    """

    def __init__(
        self, feature_dim: int, embedding_dim: int, noise_dim: int, narrow: int, wide: int, **kwargs: Any
    ) -> None:
        super().__init__(feature_dim, embedding_dim, noise_dim, final=FINAL, **kwargs)
        self.decoder = layers(noise_dim + embedding_dim, narrow, wide, feature_dim)

    def generate(self, noise: Tensor, descriptions: Tensor) -> Tensor:
        features: Tensor = self.decoder(torch.cat([noise, descriptions], 1))
        return features


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) of each row, (B, z) -> (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)


class SEGZSLLosses:
    """Autoencoder and regressor on scaled features.

    Args:
        encoder: x -> [mean, log variance] of z; decoder: [z; a] -> x; regressor: x -> a.
        features: (N, d) scaled.
        labels: (N,).
        embeddings: (C_s, m) normalised.
        feedback, prior, independence, synthetic_regression: weights of L_c, L_reg, L_E and of the regressor's
            second term.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        regressor: nn.Module,
        features: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        *,
        feedback: float,
        prior: float,
        independence: float,
        synthetic_regression: float,
    ) -> None:
        self.encoder, self.decoder, self.regressor = encoder, decoder, regressor
        self.both = nn.ModuleList([encoder, decoder])
        self.features, self.labels, self.embeddings = features, labels, embeddings
        self.feedback, self.prior, self.independence = feedback, prior, independence
        self.synthetic_regression = synthetic_regression

    def code(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, z) of q(z | x)."""
        mean, log_variance = self.encoder(features).chunk(2, 1)
        return mean, log_variance.clamp(-20, 20)

    def of_regressor(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """L_R = 1/2 |R(x) - a|² + weight · 1/2 |R(G(z, a)) - a|²."""
        real, described = self.features[images], self.embeddings[self.labels[images]]
        with torch.no_grad():
            made = self._decode(self._draw(real, random), described)
        loss = _half_square(self.regressor(real), described)
        loss = loss + self.synthetic_regression * _half_square(self.regressor(made), described)
        return {"loss": loss}

    def of_autoencoder(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """L_VAE + feedback · L_c + prior · L_reg + independence · L_E."""
        real, described = self.features[images], self.embeddings[self.labels[images]]
        mean, log_variance = self.code(real)
        code = mean + (0.5 * log_variance).exp() * self._draw(real, random)
        kl = divergence(mean, log_variance).mean()
        reconstruction = _half_square(self._decode(code, described), real)
        loss = reconstruction + kl
        if self.feedback or self.prior or self.independence:
            noise = self._draw(real, random)
            made = self._decode(noise, described)
            found, log_found = self.code(made)
            unlikely = 0.5 * ((noise - found).square() * (-log_found).exp() + log_found).sum(1).mean()
            loss = loss + self.feedback * _half_square(self.regressor(made), described)
            loss = loss + self.prior * _half_square(made, real) + self.independence * unlikely
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def players(self, lr: float) -> dict[str, Player]:
        """One turn of the regressor on new images, then one of the autoencoder on the same."""
        return {
            "regressor": player(self.regressor, self.of_regressor, lr=lr),
            "autoencoder": player(self.both, self.of_autoencoder, lr=lr, fresh=False),
        }

    def _draw(self, like: Tensor, random: torch.Generator) -> Tensor:
        sizes = [layer.in_features for layer in self.decoder.modules() if isinstance(layer, nn.Linear)]
        return normal((len(like), sizes[0] - self.embeddings.shape[1]), random, like)

    def _decode(self, code: Tensor, described: Tensor) -> Tensor:
        features: Tensor = self.decoder(torch.cat([code, described], 1))
        return features


def _half_square(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean over the batch of 1/2 |found - wanted|²."""
    return 0.5 * (found - wanted).square().sum(1).mean()


@register
@dataclass(frozen=True)
class SEGZSL(Method):
    """SE-GZSL. A conditional variational autoencoder, q(z | x) = N(mu(x), sigma²(x)) and p(x | z, a) = N(G(z, a), I),
    and a regressor R that predicts the class embedding from a feature. In turn they minimise

        R:     1/2 |R(x) - a|² + synthetic_regression · 1/2 |R(G(z, a)) - a|²
        q, G:  1/2 |x - G(z, a)|² + KL(q(z | x) || N(0, I)) + feedback · 1/2 |R(G(z', a)) - a|²
               + prior · 1/2 |x - G(z', a)|² - independence · log q(z' | G(z', a)),       z' from N(0, I)

    Then a softmax is fitted to the real features of the seen and synthetic ones of the unseen classes, as in f-CLSWGAN
    (the paper takes a support vector machine). How many are synthesised is the method's own calibration; the
    published figures add no gamma (columns U0, S0, H0). Written from memory of the paper; the sizes and weights are not
    verified.

    Args:
        feature_norm: scaling of the features. The decoder's noise has deviation 1. If features vary much less, as with
            "minmax", the code z carries no information, and every synthetic feature of a class is its mean.
        embedding_normalisation: of the class embeddings.
        noise: size of z.
        narrow: hidden units of the layer next to z, in encoder and decoder.
        wide: hidden units of the layer next to x, and of the regressor.
        epochs: passes, N / batch_size pairs of turns each.
        batch_size: images in a turn.
        lr: of Adam, for both sides.
        feedback: weight of the regressor's loss on synthetic features, in the autoencoder's loss.
        prior: weight of the distance between x and a feature made from a drawn code z'.
        independence: weight of the log-likelihood of the drawn code z' given its synthetic feature.
        synthetic_regression: weight of synthetic features in the regressor's loss.
        synthetic: features made for each class without images.
    """

    name: ClassVar[str] = "se-gzsl"
    label: ClassVar[str] = "SE-GZSL"
    version: ClassVar[int] = 2
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "synthetic": (100, 300, 800),
        "feedback": (0.01, 0.1, 1.0),
        "prior": (0.01, 0.1, 1.0),
        "epochs": (15, 30, 100),
    }
    budget: ClassVar[Mapping[str, Any]] = {"epochs": 15}

    feature_norm: FeatureNorm = "standard"
    embedding_normalisation: Normalisation = "unit"
    noise: int = 100
    narrow: int = 800
    wide: int = 1000
    epochs: int = 30
    batch_size: int = 256
    lr: float = 1e-3
    feedback: float = 1.0
    prior: float = 0.1
    independence: float = 0.1
    synthetic_regression: float = 0.1
    synthetic: int = 300

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("noise", "narrow", "wide", "epochs", "batch_size", "lr", "synthetic"),
            not_negative=("feedback", "prior", "independence", "synthetic_regression"),
            largest={"noise": 1_000_000, "narrow": 1_000_000, "wide": 1_000_000, "synthetic": 1_000_000},
        )

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> SEGZSLModel:
        return SEGZSLModel(
            feature_dim, embedding_dim, self.noise, self.narrow, self.wide, feature_norm=self.feature_norm,
            embedding_normalisation=self.embedding_normalisation, synthetic=self.synthetic,
        )  # fmt: skip

    def fit(self, model: SEGZSLModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        features, labels, embeddings = model.fit_scales(problem, context)

        def train() -> dict[str, Tensor]:
            self._play(model.decoder, features, labels, embeddings, context)
            return {k: v.clone() for k, v in model.decoder.state_dict().items()}

        model.decoder.load_state_dict(problem.cached(f"{self._training()} {context.seed}", train))
        model.keep_real(features, labels)

    def _training(self) -> str:
        """Everything that decides the decoder; a search over `synthetic` trains it only once."""
        return str({k: v for k, v in {"method": self.name, **self.settings()}.items() if k != "synthetic"})

    def _play(
        self, decoder: nn.Module, features: Tensor, labels: Tensor, embeddings: Tensor, context: Context
    ) -> None:
        d, m = features.shape[1], embeddings.shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            encoder = layers(d, self.wide, self.narrow, 2 * self.noise).to(features.device)
            regressor = layers(d, self.wide, m).to(features.device)
        losses = SEGZSLLosses(
            encoder, decoder, regressor, features, labels, embeddings, feedback=self.feedback,
            prior=self.prior, independence=self.independence, synthetic_regression=self.synthetic_regression,
        )  # fmt: skip
        alternate(
            losses.players(self.lr), len(features), context, {"all": nn.ModuleList([losses.both, regressor])},
            steps=self.epochs * -(-len(features) // self.batch_size), batch_size=self.batch_size,
        )  # fmt: skip
