"""Class-wise cross-validation: right folds, no test image, resumable, the same in parallel."""

from __future__ import annotations

import csv
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_problem import SETTINGS, small_problem, spoilt_problem

from fastzsl.data.held_out import HeldOutClasses, SeenClassesOnly
from fastzsl.errors import UserError
from fastzsl.protocol.calibration import best_common_gamma
from fastzsl.protocol.folds import ClassDraws, ClassFolds, NamedClasses
from fastzsl.protocol.selection import choose_training, select, training_options
from fastzsl.protocol.trials import Source, Trial, TrialTable
from fastzsl.protocol.workers import run_trials
from fastzsl.training.settings import Settings

GRID = {"lr": (1e-6, 1e-2), "eta": (0.0, 1.0)}


def trial_of(settings, held_out=None):
    return Trial.of(settings, small_problem(Source.of(settings)), held_out)


def choose(folder, load=small_problem, workers=1, grid=GRID, **settings):
    table = TrialTable(folder)
    run = functools.partial(run_trials, table=table, workers=workers, load=load)
    data = load(Source.of(SETTINGS))
    return select(SETTINGS, data, grid, table, run, folds=ClassFolds(2, 1, seed=4), **settings)


def test_every_seen_class_is_held_out_once_in_each_repetition():
    data = small_problem()
    folds = ClassFolds(folds=3, repeats=2, seed=1)
    held = [SeenClassesOnly(data).problem(p) for p in folds.problems()]
    for repeat in (held[:3], held[3:]):
        names = [p.class_names[i] for p in repeat for i in p.unseen.tolist()]
        assert sorted(names) == sorted(data.class_names[i] for i in data.seen.tolist())
    assert held[0].class_names != held[3].class_names, "another repetition shuffles anew"


def test_a_problem_keeps_labels_and_features_of_its_images():
    data = small_problem()
    problem = SeenClassesOnly(data).problem(HeldOutClasses(3, 1, 2))
    for part in (problem.trainval, problem.test_seen, problem.test_unseen):
        for i in part.tolist():
            source = int(problem.image_ids[i])
            assert problem.class_names[problem.labels[i]] == data.class_names[data.labels[source]]
            assert torch.equal(
                problem.read_regions(torch.tensor([i])), data.read_regions(torch.tensor([source]))
            )
    for name, row in zip(problem.class_names, problem.class_embeddings):
        assert torch.equal(row, data.class_embeddings[data.class_names.index(name)])


def test_the_guard_refuses_test_images_and_keeps_nothing_of_them():
    data = small_problem()
    problem = SeenClassesOnly(data).problem(HeldOutClasses(0))
    tests = set(data.test_seen.tolist()) | set(data.test_unseen.tolist())
    assert not tests & set(problem.image_ids.tolist())
    assert not {data.class_names[i] for i in data.unseen.tolist()} & set(problem.class_names)
    for index in (int(data.test_seen[0]), int(data.test_unseen[-1])):
        with pytest.raises(PermissionError, match="not training images"):
            problem.regions.regions([index])


def test_named_classes_are_held_out_and_others_are_refused() -> None:
    guarded = SeenClassesOnly(small_problem())
    problem = guarded.problem(NamedClasses(("class 3", "class 1")).problems()[0])
    assert [problem.class_names[i] for i in problem.unseen.tolist()] == ["class 1", "class 3"]
    with pytest.raises(UserError, match="has no seen class class 17"):
        guarded.problem(NamedClasses(("class 1", "class 17")).problems()[0])  # an unseen one
    with pytest.raises(UserError, match="wanted two or more"):
        guarded.problem(NamedClasses(("class 1",)).problems()[0])


def test_selection_reads_training_images_only(tmp_path):
    data = small_problem()
    choose(tmp_path, load=lambda source: data, grid={"eta": (0.0, 1.0)})
    assert data.regions.read, "nothing was read"
    assert data.regions.read <= set(data.trainval.tolist())


def test_spoiling_every_test_image_and_unseen_class_changes_nothing(tmp_path):
    honest = choose(tmp_path / "a")
    spoilt = choose(tmp_path / "b", load=spoilt_problem)
    assert honest.points == spoilt.points
    assert honest.gamma == spoilt.gamma


def test_it_finds_the_learning_rate_that_learns_and_says_on_what(tmp_path):
    selection = choose(tmp_path, objective="T1")
    assert selection.settings.method.lr == 1e-2
    assert selection.best.T1 > 2 / 7, "twice chance"
    assert selection.settings.run == SETTINGS.run
    assert "2 folds of the seen classes" in selection.chosen_on
    assert min(c.T1 for c in selection.points) < selection.best.T1
    selection.save_table(tmp_path / "trials.csv")
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [r["lr"] for r in rows if r["chosen"]] == ["0.01"]
    assert {r["lr"] for r in rows} == {"1e-06", "0.01"}


def test_a_stopped_search_goes_on_and_a_finished_one_trains_nothing(tmp_path):
    table, trained = TrialTable(tmp_path), []

    def run(trials, stop_after=None):
        for trial in dict.fromkeys(t.key for t in trials if t not in table):
            if stop_after is not None and len(trained) >= stop_after:
                raise KeyboardInterrupt
            own = next(t for t in trials if t.key == trial)
            run_trials([own], table, workers=1, load=small_problem)
            trained.append(trial)

    folds = ClassFolds(2)
    with pytest.raises(KeyboardInterrupt):
        select(SETTINGS, small_problem(), GRID, table, functools.partial(run, stop_after=3), folds=folds)
    assert len(trained) == 3
    first = select(SETTINGS, small_problem(), GRID, table, run, folds=folds)
    assert len(trained) == len(set(trained)) > 3, "a finished trial was trained again"
    count = len(trained)
    again = select(SETTINGS, small_problem(), GRID, table, run, folds=folds)
    assert len(trained) == count
    assert again == first


def test_a_trial_without_its_last_file_is_not_finished(tmp_path):
    trial, table = trial_of(SETTINGS, HeldOutClasses(0)), TrialTable(tmp_path)
    run_trials([trial], table, workers=1, load=small_problem)
    assert trial in table
    (table.path(trial) / "trial.json").unlink()
    assert trial not in table
    with pytest.raises(KeyError):
        table[trial]


def test_what_decides_a_result_is_a_trials_identity_and_nothing_else() -> None:
    base = trial_of(SETTINGS)
    same = SETTINGS.changed(resume=True, gamma_folds=9, out=Path("x"), checkpoint_steps=1, accelerator="auto")
    assert base.key == trial_of(same).key
    moved = replace(base, source=replace(base.source, data=replace(base.source.data, root=Path("elsewhere"))))
    assert base.key == moved.key, "where the data lie decides nothing"
    other_images = replace(small_problem(), fingerprint="others")
    keys = [
        base.key,
        *(trial_of(SETTINGS.changed(**c)).key for c in ({"eta": 0.5}, {"seed": 1}, {"precision": "64-true"})),
        trial_of(SETTINGS, HeldOutClasses(0)).key,
        trial_of(SETTINGS, HeldOutClasses(0, 1, 2)).key,
        Trial.of(SETTINGS, other_images).key,
    ]
    assert len(set(keys)) == len(keys)


def test_images_that_changed_between_planning_and_training_are_refused(tmp_path: Path) -> None:
    trial = trial_of(SETTINGS)
    with pytest.raises(UserError, match="files changed meanwhile"):
        run_trials([trial], TrialTable(tmp_path), workers=1, load=spoilt_problem)


def test_a_limited_search_tries_that_many_settings_the_start_among_them(tmp_path: Path) -> None:
    found = choose(tmp_path, limit=3)
    assert len(found.points) == 3
    assert found.points[0].changes == {"lr": SETTINGS.method.lr, "eta": SETTINGS.method.eta}
    again = choose(tmp_path, limit=3)
    assert [p.changes for p in again.points] == [p.changes for p in found.points]


def test_a_full_search_tries_every_combination(tmp_path: Path) -> None:
    assert len(choose(tmp_path, full=True).points) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: choose(p, grid={"etta": (0.0,)}), 'has no setting etta; did you mean "eta"'),
        (lambda p: choose(p, objective="U"), 'objective is "U"'),
        (lambda p: ClassFolds(1), "wanted 2 to 1000 folds"),
        (
            lambda p: SeenClassesOnly(small_problem()).problem(HeldOutClasses(0, 0, 13)),
            "13 folds need at least 26",
        ),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, call, message):
    with pytest.raises(UserError, match=message):
        call(tmp_path)


def test_the_epochs_are_the_best_of_those_named_and_gamma_comes_from_the_same_trainings(tmp_path):
    table = TrialTable(tmp_path)
    run = functools.partial(run_trials, table=table, workers=1, load=small_problem)
    settings = SETTINGS.changed(lr=1e-3, choose_epochs=(1, 30), epochs=7)
    found = choose_training(settings, small_problem(), training_options(settings), table, run)
    assert found.settings.method.epochs == 30, "one epoch at this rate learns nothing"
    tried = {c.changes["epochs"]: c.AUSUC for c in found.points}
    assert set(tried) == {1, 30}, "the epochs in use are not tried unless they are named"
    assert tried[30] == max(tried.values())
    assert found.gamma == best_common_gamma(
        [table[trial_of(settings.changed(epochs=30), p)].scores for p in ClassDraws(2, 0).problems()]
    )
    with pytest.raises(UserError, match="--gamma-folds above 0"):
        choose_training(settings.changed(gamma_folds=0), small_problem(), [{"epochs": 1}], table, run)


def test_a_search_starts_with_the_settings_and_the_recipes_and_counts_them(tmp_path):
    table = TrialTable(tmp_path)
    run = functools.partial(run_trials, table=table, workers=1, load=small_problem)
    recipe = {"lr": 2e-3, "temperature": 20.0}
    found = select(
        SETTINGS.changed(epochs=1), small_problem(), {"alpha": (0.0, 0.5)}, table, run,
        folds=ClassDraws(2, 0), limit=3, options=[recipe],
    )  # fmt: skip
    start, second, third = [p.changes for p in found.points]
    assert set(start) == set(second) == set(third) == {"alpha", "lr", "temperature"}
    assert second == {**start, **recipe}, "the recipe changes nothing else"
    assert third == {**start, "alpha": third["alpha"]} != start, "drawn from the grid"


def test_recipes_are_compared_unless_the_schedule_was_given():
    settings = Settings()
    recipes = settings.method.recipes
    own = {name: getattr(settings.method, name) for recipe in recipes.values() for name in recipe}
    assert training_options(settings) == [own, *({**own, **recipe} for recipe in recipes.values())]
    without = training_options(settings.changed(eta=0.0))
    assert len(without) == 1 + len(recipes), "the model without a part is trained as well as the whole"
    assert not any("eta" in option for option in without), "and stays without it"
    assert settings.changed(eta=0.0).method.recipe("gentle").get("eta", 0.0) == 0.0
    assert not training_options(settings.changed(lr=0.004)), "the user decided"
    assert not training_options(settings.changed(recipe="given"))
    assert not training_options(settings.changed(gamma_folds=0)), "nothing to compare on"
    assert training_options(settings.changed(choose_epochs=(3, 4))) == [{"epochs": 3}, {"epochs": 4}]
    named = settings.changed(recipe="gentle", eta=0.0, choose_epochs=(3, 4)).with_recipe()
    assert named.protocol.recipe == "given"
    assert named.method.settings() == {**settings.method.settings(), **recipes["gentle"], "eta": 0.0}
    assert training_options(named) == [{"epochs": 3}, {"epochs": 4}], (
        "its epochs are chosen as those of the defaults"
    )
    with pytest.raises(UserError, match="--recipe soft"):
        settings.changed(recipe="soft")


def test_the_recipe_that_is_better_on_held_out_classes_is_taken(tmp_path):
    table = TrialTable(tmp_path)
    run = functools.partial(run_trials, table=table, workers=1, load=small_problem)
    options = [{"lr": 1e-9, "epochs": 1}, {"lr": 1e-2, "epochs": 30}]  # the first learns nothing
    found = choose_training(SETTINGS, small_problem(), options, table, run)
    assert found.best.changes == options[1]
    assert (found.settings.method.lr, found.settings.method.epochs) == (1e-2, 30)


def test_what_is_hopeless_on_the_first_problem_is_not_trained_on_the_others(tmp_path):
    table = TrialTable(tmp_path)
    planned: list[int] = []

    def run(trials):  # type: ignore[no-untyped-def]
        planned.append(sum(t not in table for t in trials))
        run_trials(trials, table, workers=1, load=small_problem)

    hopeless, good, better = {"lr": 1e-9, "epochs": 1}, {"lr": 1e-2, "epochs": 20}, {"lr": 1e-2, "epochs": 30}
    settings = SETTINGS.changed(gamma_folds=3)
    found = choose_training(settings, small_problem(), [hopeless, good, better], table, run)
    assert planned == [3, 4], "three on the first problem, then two on the two others"
    assert [(p.changes, p.problems) for p in found.points] == [(hopeless, 1), (good, 3), (better, 3)]
    assert found.best.problems == 3
    assert found.gamma == found.best.gamma
    kept = [p for p in found.points if p.problems == 3]
    assert found.best.AUSUC == max(p.AUSUC for p in kept)


def test_spoilt_test_images_do_not_change_the_epochs(tmp_path):
    settings = SETTINGS.changed(choose_epochs=(2, 20))
    found = []
    for name, load in (("a", small_problem), ("b", spoilt_problem)):
        table = TrialTable(tmp_path / name)
        found.append(
            choose_training(
                settings,
                load(Source.of(settings)),
                training_options(settings),
                table,
                functools.partial(run_trials, table=table, workers=1, load=load),
            )
        )
    assert found[0].points == found[1].points
    assert found[0].settings == found[1].settings
