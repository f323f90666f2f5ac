"""Class embeddings expressed in the space that they span: the same inner products with fewer numbers."""

from __future__ import annotations

import pytest
import torch

from fastzsl.methods import METHODS
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.methods.context import Context
from fastzsl.methods.engines.descriptions import Descriptions
from fastzsl.methods.engines.normalisation import span
from fastzsl.methods.method import ClassSet
from fastzsl.training.fit import fit_model
from tests.methods.planted import planted


def _model(m: int = 40, **settings: object) -> AttendedAutoencoder:
    return AttendedAutoencoder(8, m, hidden=6, **settings).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["none", "unit", "centre", "standardise", "range", "whiten"])
def test_inner_products_of_the_training_classes_stay_the_same(seed: int, how: str) -> None:
    classes = torch.randn(9, 40) + 2
    model = _model(embedding_normalisation=how)
    model.fit_scaling(torch.randn(5, 4, 8), classes)
    before = model.embed(classes)
    model.fit_span(classes)
    after = model.embed(classes)
    assert after.shape == (9, 8 if how in ("centre", "standardise", "whiten") else 9)
    torch.testing.assert_close(
        after @ after.mT, before @ before.mT, rtol=0, atol=1e-4 * float(before.norm(dim=1).max()) ** 2
    )
    assert model.decoder.weight.shape == (after.shape[1], 8)
    assert model(torch.randn(2, 4, 8), classes).shape == (2, 9)


def test_whitening_divides_the_coordinates_by_the_cube_root_of_the_singular_values(seed: int) -> None:
    classes, new = torch.randn(9, 40) * torch.logspace(0, -2, 40), torch.randn(3, 40)
    model, plain = _model(embedding_normalisation="whiten"), _model(embedding_normalisation="centre")
    for one in (model, plain):
        one.fit_scaling(torch.randn(5, 4, 8), classes)
    own = Descriptions("whiten", 40)
    torch.testing.assert_close(own.fit(classes), model.embed(classes))
    torch.testing.assert_close(own(new), model.embed(new))
    rows = plain.embed(torch.cat([classes, new])).double()
    _, sizes, axes = torch.linalg.svd(rows[:9], full_matrices=False)
    wanted = (rows @ axes[:8].mT) / sizes[:8] ** (1 / 3)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    found = model.embed(torch.cat([classes, new])).double()
    torch.testing.assert_close(found @ found.mT, wanted @ wanted.mT, rtol=0, atol=1e-4)
    model.fit_span(classes)
    reduced = model.embed(classes).double()
    assert reduced.shape[1] == 8
    torch.testing.assert_close(reduced @ reduced.mT, wanted[:9] @ wanted[:9].mT, rtol=0, atol=1e-4)


@pytest.mark.parametrize("m", [5, 31])
def test_nothing_changes_where_the_classes_span_all_dimensions_or_many_of_them(seed: int, m: int) -> None:
    classes = torch.randn(9, m)
    model = _model(m)
    model.fit_scaling(torch.randn(5, 4, 8), classes)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    model.fit_span(classes)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_a_new_class_is_projected(seed: int) -> None:
    classes, new = torch.randn(6, 40), torch.randn(3, 40)
    model = _model(embedding_normalisation="none")
    model.fit_span(classes)
    inside = torch.linalg.lstsq(classes.mT.double(), new.mT.double()).solution.mT @ classes.double()
    torch.testing.assert_close(
        (model.embed(new) @ model.embed(classes).mT).double(),
        inside @ classes.double().mT,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("coupled", [True, False])
def test_a_saved_model_opens_with_its_own_size(seed: int, coupled: bool) -> None:
    classes, regions = torch.randn(6, 40), torch.randn(2, 4, 8)
    model = _model(coupled=coupled)
    model.fit_scaling(regions, classes)
    model.fit_span(classes)
    other = _model(coupled=coupled)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(regions, classes), model(regions, classes))
    ids = torch.arange(6)
    assert torch.equal(other.classifier(ClassSet(classes, ids))(regions), model(regions, classes))


def test_weights_saved_before_there_was_a_basis_open(seed: int) -> None:
    model, other = _model(), _model()
    old = model.state_dict()
    del old["embedding_basis"]
    other.load_state_dict(old)
    classes, regions = torch.randn(6, 40), torch.randn(2, 4, 8)
    assert torch.equal(other(regions, classes), model(regions, classes))


def test_rounding_adds_no_dimension(seed: int) -> None:
    low = torch.randn(30, 4) @ torch.randn(4, 50)
    basis = span(low)
    assert basis.shape == (50, 4)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(4))


@pytest.mark.parametrize("reduce", [True, False])
def test_training_reduces_by_default_gives_the_same_bits_and_reads_only_what_it_declared(
    reduce: bool,
) -> None:
    data = planted(classes=12, unseen=4, images=6, embedding_dim=30, feature_dim=10)
    method = METHODS["attended"](
        epochs=1, hidden=6, eta=0.0, reduce_embeddings=reduce
    )  # eta 0: reads the seen ones
    first, second = (fit_model(method, data, Context(seed=3)) for _ in range(2))
    assert first.decoder.weight.shape == (7 if reduce else 30, 10)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
