"""Every registered method keeps the contract of `fastzsl.methods.method`; a new method is tested by being there."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.methods import METHODS
from fastzsl.methods.context import Context
from fastzsl.methods.method import Method, Model, new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import all_classes, features, planted, unseen_classes

SMALL: dict[str, dict[str, object]] = {
    "attended": {"epochs": 15, "lr": 1e-2, "hidden": 64, "backend": "eager", "batch_size": 32},
    "dazle": {"epochs": 20, "lr": 3e-2, "backend": "eager", "batch_size": 32},
    "dcn": {"epochs": 30, "lr": 1e-2, "hidden": 64},
    "f-clswgan": {"epochs": 20, "lr": 3e-3, "hidden": 64, "beta": 1.0, "synthetic": 50},
    "gazsl": {"steps": 150, "lr": 1e-3, "hidden": 64, "batch_size": 128, "noise": 16},
    "pooled": {"epochs": 15, "lr": 1e-2, "hidden": 64, "backend": "eager", "batch_size": 32},
    "relation-net": {
        "epochs": 40,
        "lr": 1e-3,
        "class_hidden": 256,
        "hidden": 256,
        "feature_norm": "standard",
    },
    "se-gzsl": {"epochs": 60, "narrow": 64, "wide": 64, "noise": 16, "batch_size": 64, "synthetic": 50},
}
"""Settings that suit the planted problem; a method that is not named here runs with its own defaults."""
PROBLEM: dict[str, dict[str, object]] = {"joint-space": {"same_space": True}}
"""What the planted problem must be like for a method; joint-space needs images and classes in one space."""
METHOD_NAMES = sorted(METHODS)


def make(name: str) -> Method:
    return replace(METHODS[name](), **SMALL.get(name, {}))  # type: ignore[arg-type]


def problem_for(name: str, seed: int, **kwargs: object) -> ZeroShotDataset:
    return planted(seed, **PROBLEM.get(name, {}), **kwargs)  # type: ignore[arg-type]


def trained(method: Method, data, seed: int = 0) -> Model:
    problem = Problem(data, method.descriptions)
    model = new_model(method, problem.feature_dim, problem.embedding_dim, seed)
    method.fit(model, problem, Context(seed=seed))
    return model.eval()


def scores(model: Model, data, classes=None, indices=None) -> torch.Tensor:
    classes = classes or all_classes(data)
    indices = data.test_unseen if indices is None else indices
    with torch.no_grad():
        return model.classifier(classes)(features(data, indices, model.reads))


@pytest.fixture(scope="module", params=METHOD_NAMES)
def case(request):
    method = make(request.param)
    data = problem_for(request.param, 1)
    return method, data, trained(method, data)


def test_it_beats_three_times_chance_on_unseen_classes(case) -> None:
    _, data, model = case
    found = data.unseen[scores(model, data, unseen_classes(data)).argmax(1)]
    accuracy = (found == data.labels[data.test_unseen]).double().mean()
    assert accuracy > 3 / len(data.unseen)


def test_saved_and_reopened_scores_are_equal(case) -> None:
    method, data, model = case
    again = new_model(method, data.regions.feature_shape[0], data.embedding_dim, seed=99)
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    again.eval()
    assert torch.equal(scores(again, data), scores(model, data))
    buffer = io.BytesIO()
    torch.save(again.state_dict(), buffer)
    assert all(isinstance(v, torch.Tensor) for v in again.state_dict().values())


def test_a_class_given_only_by_its_description_scores(case) -> None:
    _, data, model = case
    one = unseen_classes(data)
    three = type(one)(one.descriptions[:3], one.training_ids[:3])
    found = scores(model, data, three)
    assert found.shape == (len(data.test_unseen), 3)
    assert torch.isfinite(found).all()


def test_scores_are_finite_and_one_column_a_class(case) -> None:
    _, data, model = case
    found = scores(model, data, indices=data.test_seen)
    assert found.shape == (len(data.test_seen), data.num_classes)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_permuted_classes_permute_the_scores_unless_the_model_says_otherwise(case) -> None:
    _, data, model = case
    if model.depends_on_class_set:
        pytest.skip("the classifier is fitted to the set of classes")
    classes = all_classes(data)
    order = torch.randperm(data.num_classes, generator=torch.Generator().manual_seed(3))
    permuted = scores(model, data, type(classes)(classes.descriptions[order], classes.training_ids[order]))
    torch.testing.assert_close(permuted, scores(model, data)[:, order], atol=1e-4, rtol=1e-4)
    alone = scores(model, data, unseen_classes(data))
    torch.testing.assert_close(alone, scores(model, data)[:, data.unseen], atol=1e-4, rtol=1e-4)


def test_attention_is_absent_or_rows_that_sum_to_one(case) -> None:
    _, data, model = case
    batch = features(data, data.test_unseen[:4], model.reads)
    with torch.no_grad():
        found = model.attention(batch, data.class_embeddings)
    if found is not None:
        assert found.shape == (4, data.num_classes, batch.shape[1])
        torch.testing.assert_close(found.sum(2), torch.ones(found.shape[:2]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_spoilt_test_images_and_undeclared_descriptions_change_nothing(name: str) -> None:
    method = make(name)
    if method.descriptions == "all":
        spoilt = replace(
            problem_for(name, 2, spoil_tests=True), class_embeddings=problem_for(name, 2).class_embeddings
        )
    else:
        spoilt = problem_for(name, 2, spoil_tests=True)
    honest = trained(method, problem_for(name, 2)).state_dict()
    for key, value in trained(method, spoilt).state_dict().items():
        assert torch.equal(value, honest[key]), key


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_same_seed_gives_the_same_bits_and_the_global_random_state_stays(name: str) -> None:
    method, data = make(name), problem_for(name, 3)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = trained(method, data, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second = trained(method, data, seed=5)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert torch.equal(scores(first, data), scores(second, data))


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_its_class_says_what_tables_and_search_need(name: str) -> None:
    cls = METHODS[name]
    method = cls()
    assert cls.name == name
    assert cls.label
    assert cls.__doc__
    for field, values in cls.grid.items():
        assert hasattr(method, field)
        for value in values:
            replace(method, **{field: value})
    for field in method.settings():
        assert f" {field}" in cls.__doc__, f"{field} is not explained"
    replace(method, **cls.budget)


def test_undeclared_descriptions_are_refused() -> None:
    problem = Problem(planted(), "seen")
    for name in ("unseen_descriptions", "all_descriptions", "seen"):
        with pytest.raises(PermissionError, match="seen classes only"):
            getattr(problem, name)
