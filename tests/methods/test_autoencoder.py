"""The model scores classes as the paper says, whatever the order of computation."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from fastzsl import AttendedAutoencoder, FusedDenseAttention
from fastzsl.features.sources import MemoryRegions
from fastzsl.features.stored import Stored
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.attended.pooled import PooledAutoencoder
from fastzsl.methods.context import Context
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.problem import Problem
from fastzsl.ops import backends, reference
from tests.methods.planted import planted


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_scores_are_equation_8_of_the_attended_features(seed: int, coupled: bool, similarity: str) -> None:
    model = AttendedAutoencoder(16, 5, coupled=coupled, similarity=similarity).eval()  # type: ignore[arg-type]
    regions, K = torch.randn(3, 9, 16), torch.randn(7, 5)
    attended, attention = model.attend(regions, K)
    assert attended.shape == (3, 7, 16)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 7))
    decoded, k = model.mapping(attended), model.embed(K)
    if similarity == "cosine":
        decoded, k = F.normalize(decoded, dim=-1), F.normalize(k, dim=-1)
    torch.testing.assert_close(model(regions, K), (decoded * k).sum(-1), atol=1e-5, rtol=1e-4)


def test_coupling_shares_the_decoder_and_decoupling_does_not() -> None:
    coupled, decoupled = AttendedAutoencoder(8, 5), AttendedAutoencoder(8, 5, coupled=False)
    assert coupled.mapping is coupled.decoder
    assert decoupled.mapping is not decoupled.decoder
    extra = sum(p.numel() for p in decoupled.parameters()) - sum(p.numel() for p in coupled.parameters())
    assert extra == 8 * 5 + 5


def test_queries_get_the_length_that_was_asked_for_and_keep_their_direction(seed: int) -> None:
    free, fixed = AttendedAutoencoder(8, 5), AttendedAutoencoder(8, 5, query_length=3.0)
    fixed.load_state_dict(free.state_dict())
    K = torch.randn(4, 5)
    torch.testing.assert_close(fixed.encoder(K).norm(dim=-1), torch.full((4,), 3.0))
    torch.testing.assert_close(F.cosine_similarity(fixed.encoder(K), free.encoder(K)), torch.ones(4))


def test_average_pooling_ignores_where_things_are_and_every_class_sees_the_same(seed: int) -> None:
    model = PooledAutoencoder(8, 5).eval()
    regions, K = torch.randn(2, 9, 8), torch.randn(4, 5)
    expected = F.cosine_similarity(
        model.decoder(model.regions(regions).mean(1))[:, None], model.embed(K)[None], dim=-1
    )
    torch.testing.assert_close(model(regions, K), expected)


def test_feature_map_and_regions_are_the_same_input(seed: int) -> None:
    model = AttendedAutoencoder(8, 5).eval()
    maps, K = torch.randn(2, 8, 3, 3), torch.randn(4, 5)
    torch.testing.assert_close(model(maps, K), model(maps.flatten(2).transpose(1, 2), K))


def test_scaling_is_fitted_to_unit_root_mean_square_and_seen_mean(seed: int) -> None:
    model = AttendedAutoencoder(8, 5, embedding_normalisation="centre")
    regions, seen = 3 + 7 * torch.rand(20, 9, 8), torch.randn(6, 5)
    model.fit_scaling(regions, seen)
    scaled = model.eval().regions(regions)
    torch.testing.assert_close(scaled.square().sum(-1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(model.embedding_shift, seen.mean(0))
    torch.testing.assert_close(model.embed(torch.randn(4, 5)).norm(dim=-1), torch.ones(4))


def test_a_backbone_in_the_graph_gets_gradients(seed: int) -> None:
    backbone = nn.Conv2d(3, 8, 4, stride=4)
    model = AttendedAutoencoder(8, 5, backbone=backbone)
    loss = model.loss(
        torch.randn(2, 3, 16, 16), torch.tensor([0, 1]), torch.randn(3, 5), torch.tensor([0, 1])
    )
    loss["loss"].backward()
    assert backbone.weight.grad is not None
    assert backbone.weight.grad.abs().sum() > 0


def test_dropout_acts_in_training_only(seed: int) -> None:
    model = AttendedAutoencoder(8, 5, feature_dropout=0.5, region_dropout=0.5)
    regions = torch.randn(2, 10, 8)
    assert torch.equal(model.eval().regions(regions), model.eval().regions(regions))
    dropped = model.train().regions(regions)
    assert dropped.shape == (2, 5, 8)
    zeros = (dropped == 0).all(1)
    assert 0 < zeros.sum() < zeros.numel()


@pytest.mark.parametrize("shape", [(2, 8, 3, 3), (2, 9, 8)])
def test_drop_in_attention_module(seed: int, shape: tuple[int, ...]) -> None:
    features, queries = torch.randn(shape), torch.randn(4, 8)
    regions = features.flatten(2).mT if features.ndim == 4 else features
    truth, weights = reference.dense_attention(
        regions.double(), queries.double(), scale=2.0, return_attention=True
    )
    module = FusedDenseAttention(scale=2.0)
    torch.testing.assert_close(module(features, queries), truth.float())
    attended, attention = module(features, queries, need_weights=True)
    torch.testing.assert_close(attention, weights.float())
    torch.testing.assert_close(attended, truth.float())
    assert not list(module.parameters())


def test_drop_in_attention_names_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"features has shape \(2, 3\); wanted a feature map"):
        FusedDenseAttention()(torch.zeros(2, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stored_features_reach_the_model_as_they_are_stored(
    monkeypatch: pytest.MonkeyPatch, precision: Literal["32-true", "bf16-mixed"]
) -> None:
    data = planted(classes=8, unseen=2, images=6)
    assert data.regions is not None
    half = replace(data, regions=MemoryRegions(torch.rand(len(data.labels), 48, 2, 2).half()))
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    prepare = AttendedAutoencoder.regions

    def watched(self: AttendedAutoencoder, inputs: Stored, part: BatchPart | None = None) -> torch.Tensor:
        regions = prepare(self, inputs, part)
        seen.append((inputs.copied().dtype, regions.dtype))
        return regions

    monkeypatch.setattr(AttendedAutoencoder, "regions", watched)
    method = Attended(epochs=2, hidden=8)
    model = method.build(48, 16)
    method.fit(
        model, Problem(half, "all"), Context(Fabric(accelerator="cpu", devices=1, precision=precision))
    )
    computed = torch.float32 if precision == "32-true" else torch.bfloat16
    assert set(seen) == {(torch.float16, computed)}
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_one_step_is_the_same_on_native_and_eager_with_the_same_random_numbers(seed: int) -> None:
    if not backends()["native"]:
        pytest.skip("; ".join(backends()["native"].reasons))
    stored, K, seen = torch.rand(6, 12, 40).half(), torch.randn(5, 7), torch.arange(4)
    found = []
    for backend in ("native", "eager"):
        torch.manual_seed(seed)
        model = AttendedAutoencoder(40, 7, hidden=8, backend=backend).train()
        model.fit_scaling(stored, K[:4])
        loss = model.loss(stored, torch.tensor([0, 1, 2, 3, 0, 1]), K, seen)["loss"]
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
