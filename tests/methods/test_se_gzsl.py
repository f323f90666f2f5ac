"""SE-GZSL: the divergence, the gradients, and who is changed by which turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.alternate import Player, alternate
from fastzsl.methods.se_gzsl import SEGZSLLosses, divergence, layers

D, M, Z, N, C = 6, 4, 3, 40, 5


def losses(**weights: float) -> SEGZSLLosses:
    weights = {
        "feedback": 0.1, "prior": 0.1, "independence": 0.1, "synthetic_regression": 0.1, **weights
    }  # fmt: skip
    return SEGZSLLosses(
        layers(D, 8, 2 * Z), layers(Z + M, 8, D), layers(D, 8, M),
        torch.rand(N, D), torch.arange(N) % C, torch.randn(C, M), **weights,
    )  # fmt: skip


def test_the_divergence_equals_a_monte_carlo_mean(seed: int) -> None:
    mean, log_variance = torch.randn(1, Z).double(), torch.randn(1, Z).double()
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    z = q.sample((1_000_000,))
    sampled = (q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).sum(2).mean()
    torch.testing.assert_close(divergence(mean, log_variance)[0], sampled, rtol=0.01, atol=0.01)


def test_the_autoencoder_loss_has_the_gradient_of_finite_differences(seed: int) -> None:
    found = losses()
    for module in (found.both, found.regressor):
        module.double()
    found.features, found.embeddings = found.features.double(), found.embeddings.double()
    weight = found.decoder[0].weight.detach().clone().requires_grad_()

    def loss(value: Tensor) -> Tensor:
        layer = found.decoder[0]
        del layer.weight
        layer.weight = value
        return found.of_autoencoder(torch.arange(6), torch.Generator().manual_seed(1))["loss"]

    del found.decoder[0]._parameters["weight"]
    found.decoder[0].weight = weight
    assert torch.autograd.gradcheck(loss, weight)


def test_each_turn_leaves_the_other_side_alone(seed: int) -> None:
    found = losses()
    players = found.players(1e-3)
    seen: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def watched(name: str) -> Player:
        side = players[name]

        def loss(images: Tensor, random: torch.Generator) -> dict[str, Tensor]:
            seen.append((name, copied(found.regressor), copied(found.both)))
            return side.loss(images, random)

        return Player(side.parameters, side.optimizer, loss, side.turns, side.fresh)

    alternate({name: watched(name) for name in players}, N, Context(), {}, steps=2, batch_size=16)
    assert [name for name, *_ in seen] == ["regressor", "autoencoder"] * 2
    assert equal(seen[0][2], seen[1][2])
    assert not equal(seen[0][1], seen[1][1])
    assert equal(seen[1][1], seen[2][1])
    assert not equal(seen[1][2], seen[2][2])


def test_without_the_further_terms_it_is_a_plain_autoencoder(seed: int) -> None:
    found = losses(feedback=0.0, prior=0.0, independence=0.0)
    images = torch.arange(9)
    terms = found.of_autoencoder(images, torch.Generator().manual_seed(4))
    noise = torch.randn(9, Z, generator=torch.Generator().manual_seed(4))
    x, a = found.features[images], found.embeddings[found.labels[images]]
    mean, log_variance = found.encoder(x).chunk(2, 1)
    made = found.decoder(torch.cat([mean + (0.5 * log_variance).exp() * noise, a], 1))
    expected = 0.5 * (x - made).square().sum(1).mean() + divergence(mean, log_variance).mean()
    torch.testing.assert_close(terms["loss"], expected)


def test_linear_networks_recover_the_class_means_of_linear_gaussian_data(seed: int) -> None:
    described, mapping = torch.randn(30, M), torch.randn(M, D)
    labels = torch.arange(900) % 30
    features = (described @ mapping)[labels] + 0.3 * torch.randn(900, D)
    found = SEGZSLLosses(
        nn.Linear(D, 2 * Z), nn.Sequential(nn.Linear(Z + M, D)), nn.Linear(D, M),
        features, labels, described, feedback=0.0, prior=0.0, independence=0.0, synthetic_regression=0.0,
    )  # fmt: skip
    alternate(found.players(1e-2), 900, Context(), {}, steps=1200, batch_size=128)
    new = torch.randn(50, M)
    with torch.no_grad():
        made = found.decoder(torch.cat([torch.zeros(50, Z), new], 1))
    true = new @ mapping
    assert 1 - (made - true).square().sum() / (true - true.mean(0)).square().sum() > 0.95


def copied(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))
