"""f-CLSWGAN: what its classifiers are fitted to, and a training that is stopped and continued."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from fastzsl.methods.context import Context
from fastzsl.methods.f_clswgan import FClsWgan, FClsWganModel
from fastzsl.methods.method import ClassSet, new_model
from fastzsl.methods.problem import Problem
from tests.methods.planted import all_classes, planted, unseen_classes

METHOD = FClsWgan(hidden=32, epochs=3, lr=1e-3, synthetic=6)


class Stop(Exception):
    pass


def trained(method: FClsWgan, problem: Problem, context: Context) -> FClsWganModel:
    model = new_model(method, problem.feature_dim, problem.embedding_dim, context.seed)
    method.fit(model, problem, context)  # type: ignore[arg-type]
    return model.eval()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model() -> FClsWganModel:
    return trained(METHOD, Problem(planted(1)), Context())


def test_a_training_stopped_at_any_step_ends_with_the_same_bits(seed: int, tmp_path) -> None:
    data, path = planted(2), tmp_path / "checkpoint.pt"
    whole = trained(METHOD, Problem(data), Context(seed=3)).state_dict()
    at = random.Random(seed).randrange(2, 20)

    def stop(step: int, total: int, figures: object) -> None:
        assert total == 3 * 8  # 450 images in batches of 64
        if step == at:
            raise Stop

    def context(**kwargs) -> Context:
        return Context(seed=3, checkpoint=path, checkpoint_steps=2, identity={"run": 1}, **kwargs)

    with pytest.raises(Stop):
        trained(METHOD, Problem(data), context(listener=stop))
    steps: list[int] = []
    resumed = trained(METHOD, Problem(data), context(listener=lambda step, *_: steps.append(step)))
    assert steps[0] == (at - 1) // 2 * 2 + 1
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, whole[key]), key


def test_the_softmax_sees_real_features_of_seen_and_synthetic_ones_of_unseen_classes(model) -> None:
    data = planted(1)
    features, labels = model.training_set(all_classes(data))
    counts = torch.bincount(labels, minlength=data.num_classes)
    assert counts[data.seen].tolist() == [15] * len(data.seen)
    assert counts[data.unseen].tolist() == [METHOD.synthetic] * len(data.unseen)
    real = model.scaling(Problem(data).pooled())
    torch.testing.assert_close(features[: len(real)], real, atol=1e-3, rtol=1e-3)  # kept in float16
    _, alone = model.training_set(unseen_classes(data))
    assert torch.bincount(alone).tolist() == [METHOD.synthetic] * len(data.unseen)


def test_the_order_and_choice_of_classes_decide_which_real_features_are_taken(model) -> None:
    data = planted(1)
    ids = torch.tensor([5, -1, 2])
    rows = data.class_embeddings[torch.tensor([5, 33, 2])]
    features, labels = model.training_set(ClassSet(rows, ids))
    assert torch.bincount(labels).tolist() == [15, METHOD.synthetic, 15]
    assert torch.equal(features[labels == 2], model.real_features[model.real_labels == 2].float())


def test_synthetic_features_of_a_class_do_not_depend_on_the_others(model) -> None:
    data = planted(1)
    together = model.synthesise(data.class_embeddings[data.unseen])
    alone = model.synthesise(data.class_embeddings[data.unseen[4:5]])
    torch.testing.assert_close(together[4:5], alone)


def test_a_set_of_classes_is_fitted_once_and_anew_after_loading(model) -> None:
    data = planted(1)
    assert model.classifier(all_classes(data)) is model.classifier(all_classes(data))
    before = model.classifier(all_classes(data))
    model.load_state_dict(model.state_dict())
    after = model.classifier(all_classes(data))
    assert after is not before
    x = torch.rand(4, 48)
    assert torch.equal(after(x), before(x))


def test_more_synthetic_features_do_not_train_the_generator_again() -> None:
    problem, steps = Problem(planted(1)), []
    context = Context(listener=lambda step, *_: steps.append(step))
    first = trained(METHOD, problem, context)
    count = len(steps)
    second = trained(replace(METHOD, synthetic=12), problem, context)
    assert count == len(steps) > 0
    for key, value in first.generator.state_dict().items():
        assert torch.equal(value, second.generator.state_dict()[key])


def test_synthetic_means_follow_the_true_ones() -> None:
    """Planted Gaussian classes: the unseen classes' means come out right up to noise."""
    data = planted(6, classes=60, images=10, embedding_dim=8)
    method = FClsWgan(hidden=64, epochs=30, lr=3e-3, beta=0.1, batch_size=32, synthetic=60)
    model = trained(method, Problem(data), Context())
    made = model.synthesise(data.class_embeddings[data.unseen]).mean(1)
    pooled = data.read_regions(data.test_unseen).mean(1)
    labels = data.labels[data.test_unseen]
    true = torch.stack([model.scaling(pooled[labels == c]).mean(0) for c in data.unseen])
    correlation = torch.corrcoef(torch.stack([made.flatten(), true.flatten()]))[0, 1]
    assert correlation > 0.9
