"""The Wasserstein GAN engine: penalty, turns, and who leaves whom alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fastzsl.errors import UserError
from fastzsl.methods.context import Context
from fastzsl.methods.engines.alternate import Player, alternate
from fastzsl.methods.engines.softmax import LinearSoftmax
from fastzsl.methods.engines.wgan import Generator, gradient_penalty, hidden_layer_slopes, normal_weights
from fastzsl.methods.f_clswgan import Critic, FClsWganLosses
from fastzsl.methods.gazsl import Critic as ClassifyingCritic
from fastzsl.methods.gazsl import GAZSLLosses

D, M, Z, H, C, N = 7, 5, 3, 8, 4, 30


def f_clswgan(beta: float = 0.1) -> FClsWganLosses:
    frozen = LinearSoftmax(torch.randn(C, D), torch.randn(C))
    generator = Generator(Z, M, H, D, slope=0.2, output="relu")
    return FClsWganLosses(
        generator, Critic(D, M, H), frozen, torch.rand(N, D), torch.randint(C, (N,)), torch.randn(C, M), beta
    )


def gazsl() -> GAZSLLosses:
    generator = Generator(Z, M, H, D, slope=0.01, output="tanh")
    labels = torch.arange(N) % C
    return GAZSLLosses(
        generator, ClassifyingCritic(D, H, C), torch.rand(N, D), labels, torch.randn(C, M), 5.0
    )


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, other[k]) for k, v in one.items())


def test_the_penalty_of_a_linear_critic_is_its_closed_form(seed: int) -> None:
    weight = torch.randn(D, dtype=torch.float64)
    real, fake = torch.randn(2, N, D, dtype=torch.float64)
    found = gradient_penalty(lambda x: weight.expand_as(x), real, fake, torch.rand(N, 1, dtype=torch.float64))
    torch.testing.assert_close(found, (weight.norm() - 1).square())


def test_the_penalty_has_the_gradient_of_finite_differences(seed: int) -> None:
    critic = Critic(D, M, H).double()
    normal_weights(critic, 0.5)
    real, fake = torch.randn(2, 6, D, dtype=torch.float64)
    share, condition = torch.rand(6, 1, dtype=torch.float64), torch.randn(6, H, dtype=torch.float64)

    def penalty(weight: Tensor, last: Tensor) -> Tensor:
        def slopes(x: Tensor) -> Tensor:
            return hidden_layer_slopes((x @ weight.mT + condition).detach(), weight, last, 0.2)

        return gradient_penalty(slopes, real, fake, share)

    assert torch.autograd.gradcheck(penalty, (critic.of_features.weight, critic.last.weight))


@pytest.mark.parametrize("make", [f_clswgan, gazsl])
def test_the_slopes_of_a_critic_and_their_derivatives_are_autograds(seed: int, make) -> None:
    critic = make().critic.double()
    normal_weights(critic, 0.5)
    x = torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    inputs = (x, critic.of_description(torch.randn(N, M, dtype=torch.float64))) if make is f_clswgan else (x,)
    judged = critic(*inputs) if make is f_clswgan else critic(*inputs)[0]
    (wanted,) = torch.autograd.grad(judged.sum(), x, create_graph=True)
    found = critic.slopes(*inputs)
    torch.testing.assert_close(found, wanted)
    weights = list(critic.parameters())
    pulls = [
        torch.autograd.grad(
            (slopes.norm(dim=1) - 1).square().mean(), weights, retain_graph=True, materialize_grads=True
        )
        for slopes in (found, wanted)
    ]
    for mine, autograds in zip(*pulls):
        torch.testing.assert_close(mine, autograds)


def test_the_split_critic_is_the_one_on_concatenated_inputs(seed: int) -> None:
    critic = Critic(D, M, H).double()
    x, a = torch.randn(N, D, dtype=torch.float64), torch.randn(N, M, dtype=torch.float64)
    weight = torch.cat([critic.of_features.weight, critic.of_description.weight], 1)
    hidden = nn.functional.leaky_relu(torch.cat([x, a], 1) @ weight.mT + critic.of_features.bias, 0.2)
    torch.testing.assert_close(critic(x, critic.of_description(a)), critic.last(hidden)[:, 0])


@pytest.mark.parametrize("make", [f_clswgan, gazsl])
def test_the_critic_has_five_turns_and_each_side_leaves_the_other_alone(seed: int, make) -> None:
    losses = make()
    players = losses.players(1e-3)
    frozen = [part.clone() for part in losses.frozen] if make is f_clswgan else []
    turns = []

    def watched(name: str) -> Player:
        side = players[name]

        def loss(images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
            turns.append((name, images.tolist(), copied(losses.critic), copied(losses.generator)))
            return side.loss(images, random)

        return Player(side.parameters, side.optimizer, loss, side.turns, side.fresh)

    alternate({name: watched(name) for name in players}, N, Context(), {}, steps=2, batch_size=8)
    turns.append(("end", [], copied(losses.critic), copied(losses.generator)))
    assert [name for name, *_ in turns] == [*["critic"] * 5, "generator"] * 2 + ["end"]
    for (name, images, *before), (next_name, next_images, *after) in pairwise(turns):
        critic_stayed, generator_stayed = (equal(a, b) for a, b in zip(before, after))
        assert (critic_stayed, generator_stayed) == (name == "generator", name == "critic")
        if next_name != "end":
            assert (images == next_images) == (next_name == "generator")
    if frozen:
        assert all(torch.equal(a, b) for a, b in zip(losses.frozen, frozen))


def test_without_classification_and_with_a_critic_at_zero_the_generator_gets_no_gradient(seed: int) -> None:
    losses = f_clswgan(beta=0.0)
    normal_weights(losses.critic, 0.0)
    loss = losses.of_generator(torch.arange(8), torch.Generator().manual_seed(1))["loss"]
    for gradient in torch.autograd.grad(loss, list(losses.generator.parameters())):
        assert not gradient.any()


def test_a_loss_that_is_not_finite_stops_with_one_line(seed: int) -> None:
    losses = f_clswgan()
    losses.features[:] = torch.nan
    with pytest.raises(UserError, match="not finite at step 1"):
        alternate(losses.players(1e-3), N, Context(), {}, steps=3, batch_size=8)
