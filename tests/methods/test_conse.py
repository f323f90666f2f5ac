"""ConSE is the mean of the most probable seen classes' embeddings, weighed by their probabilities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastzsl.methods.conse import ConSE, ConvexCombination
from fastzsl.methods.context import Context
from fastzsl.methods.engines.softmax import LinearSoftmax, softmax_loss
from fastzsl.methods.engines.whitening import mean_square
from fastzsl.methods.method import ClassSet, new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import all_classes, features, planted

DATA = planted(4, classes=12, unseen=4)


def fitted(method: ConSE, normalisation: str = "unit") -> ConvexCombination:
    method = replace(method, embedding_normalisation=normalisation)  # type: ignore[arg-type]
    problem = Problem(DATA)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    method.fit(model, problem, Context())  # type: ignore[arg-type]
    return model  # type: ignore[return-value]


@pytest.fixture(scope="module")
def images():
    return features(DATA, DATA.test_unseen, "pooled")


def probabilities(model: ConvexCombination, images) -> torch.Tensor:
    logits = model.scaling(images) @ model.weight.mT + model.bias
    return (logits / model.temperature).softmax(1)


@pytest.mark.parametrize("top", [1, 3, 8, 0, 100])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_equal_a_loop(images, top: int, temperature: float) -> None:
    model = fitted(ConSE(top=top, temperature=temperature))
    classes = all_classes(DATA)
    found = model.classifier(classes)(images)
    A = torch.nn.functional.normalize(DATA.class_embeddings, dim=1)
    for p, row in zip(probabilities(model, images), found):
        best = p.argsort(descending=True)[: top or None].tolist()
        mean = sum(p[s] * A[DATA.seen[s]] for s in best) / sum(p[s] for s in best)
        torch.testing.assert_close(row, torch.cosine_similarity(mean[None], A, dim=1), atol=1e-5, rtol=1e-4)


def test_the_most_probable_class_alone_is_its_embedding(images) -> None:
    model = fitted(ConSE(top=1))
    torch.testing.assert_close(model.embed(images), model.seen[probabilities(model, images).argmax(1)])


def test_all_classes_are_the_expected_embedding(images) -> None:
    model = fitted(ConSE(top=0))
    torch.testing.assert_close(model.embed(images), probabilities(model, images) @ model.seen)


@pytest.mark.parametrize("norm", ["unit", "standard"])
def test_the_softmax_is_the_minimum_of_its_loss(norm: str) -> None:
    method = ConSE(feature_norm=norm, log_penalty=-3.0)  # type: ignore[arg-type]
    model = fitted(method)
    problem = Problem(DATA)
    X = model.scaling(problem.pooled())
    penalty = 1e-3 * mean_square(X)
    weight, bias = (part.double().requires_grad_() for part in (model.weight, model.bias))
    loss = softmax_loss(LinearSoftmax(weight, bias), X.double(), problem.labels, penalty)
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert all(float(g.norm()) < 1e-3 for g in gradients)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        other = weight + 0.05 * weight.std() * torch.randn(weight.shape, generator=generator).double()
        assert softmax_loss(LinearSoftmax(other, bias), X.double(), problem.labels, penalty) > loss


def test_cosine_not_distance_decides(images) -> None:
    """A class embedding's length says nothing, even where embeddings are used as they are."""
    model = fitted(ConSE(), "none")
    classes = all_classes(DATA)
    longer = ClassSet(classes.descriptions * torch.arange(1.0, 13.0)[:, None], classes.training_ids)
    torch.testing.assert_close(model.classifier(longer)(images), model.classifier(classes)(images))
