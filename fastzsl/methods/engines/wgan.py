"""Wasserstein GAN with gradient penalty over features: networks and losses that GAZSL and f-CLSWGAN share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fastzsl.methods.engines.alternate import Player, player
from fastzsl.ops.linear import Linear, linear

PENALTY = 10.0
"""Weight of the gradient penalty in both methods."""
CRITIC_TURNS = 5
"""Updates of the critic for one of the generator in both methods."""


class Generator(nn.Module):
    """x~ = out(W_2 LeakyReLU(W_1 [z; a] + b_1) + b_2).

    Args:
        noise_dim: size of z.
        embedding_dim: m.
        hidden: size of the hidden layer.
        feature_dim: d.
        slope: of the LeakyReLU.
        output: last nonlinearity.
    """

    def __init__(
        self,
        noise_dim: int,
        embedding_dim: int,
        hidden: int,
        feature_dim: int,
        *,
        slope: float,
        output: Literal["relu", "tanh"],
    ) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        self.first = Linear(noise_dim + embedding_dim, hidden)
        self.second = Linear(hidden, feature_dim)
        self.between = nn.LeakyReLU(slope)
        self.last = nn.ReLU() if output == "relu" else nn.Tanh()

    def forward(self, noise: Tensor, descriptions: Tensor) -> Tensor:
        """z (B, noise_dim) and a (B, m) -> features (B, d)."""
        features: Tensor = self.last(
            self.second(self.between(self.first(torch.cat([noise, descriptions], 1))))
        )
        return features


def normal_weights(module: nn.Module, deviation: float) -> None:
    """Draw every weight matrix from N(0, deviation²); biases become 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def xavier_weights(module: nn.Module) -> None:
    """Draw every weight matrix as Xavier's normal; biases become 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)


def gradient_penalty(slopes: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """mean (|grad D(x^)| - 1)² with x^ = u x + (1 - u) x~.

    Args:
        slopes: features (B, d) -> grad D (B, d), with respect to the features only.
        real, fake: x and x~ (B, d).
        share: u (B, 1).
    """
    between = share * real + (1 - share) * fake
    return (slopes(between).norm(dim=1) - 1).square().mean()


def hidden_layer_slopes(inner: Tensor, weight: Tensor, last: Tensor, slope: float) -> Tensor:
    """The gradient of w' LeakyReLU(W x + b) with respect to x: Wᵀ (w · LeakyReLU'(W x + b)), differentiable in W and w.

    The derivative LeakyReLU' is 1 or `slope`, a constant almost everywhere. Autograd does not know that: its
    gradient of this gradient has two more products, of zeros.

    Args:
        inner: W x + b (B, h); no gradient flows to it.
        weight: W (h, d).
        last: w (1, h).
        slope: of the LeakyReLU; 0 for a ReLU.

    Returns:
        (B, d).
    """
    derivative = torch.where(inner > 0, 1.0, slope).to(inner)
    return linear(last * derivative, weight.mT)


def normal(shape: tuple[int, ...], random: torch.Generator, like: Tensor) -> Tensor:
    """N(0, 1) drawn on the CPU, so that every device sees the same numbers."""
    return torch.randn(shape, generator=random).to(like)


def uniform(count: int, random: torch.Generator, like: Tensor) -> Tensor:
    """u (count, 1) from [0, 1), drawn on the CPU."""
    return torch.rand(count, 1, generator=random).to(like)


class AdversarialLosses(ABC):
    """A critic and a generator with their losses, trained in turn.

    Attributes:
        betas: of Adam, for both.
    """

    betas: ClassVar[tuple[float, float]]

    def __init__(self, generator: Generator, critic: nn.Module) -> None:
        self.generator, self.critic = generator, critic

    @abstractmethod
    def of_critic(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Loss of the critic on these training images, "loss" and its terms."""

    @abstractmethod
    def of_generator(self, images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Loss of the generator on the classes of these training images, "loss" and its terms."""

    def players(self, lr: float) -> dict[str, Player]:
        """Five turns of the critic on new images, then one of the generator on the last ones."""
        return {
            "critic": player(self.critic, self.of_critic, lr=lr, betas=self.betas, turns=CRITIC_TURNS),
            "generator": player(self.generator, self.of_generator, lr=lr, betas=self.betas, fresh=False),
        }
