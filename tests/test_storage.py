"""The storage of a running study: in memory, and in its database whatever Optuna wants to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from paretoformer.evaluators.formula import formula
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.generations import Generations
from paretoformer.search.study.optuna_study import POPULATION, keep, open_storage, open_study
from tests.test_loop import (
    OBJECTIVES,
    REQUIREMENT,
    Killed,
    new_search,
    small_space,
    storage,
)


def as_stored(url: str, name: str = "test") -> list[FrozenTrial]:
    """The trials as Optuna itself reads them from the database."""
    return optuna.load_study(study_name=name, storage=open_storage(url)).get_trials()


def facts(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial says, but for its id, which the database gives."""
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    times = (trial.datetime_start, trial.datetime_complete)
    return {"times": times, **{name: getattr(trial, name) for name in names}}


def test_optuna_reads_from_the_database_what_is_in_memory(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.requirements = [REQUIREMENT, Requirement.parse("memory_mb<=50")]
    search.run(25)
    stored = as_stored(storage(tmp_path))
    assert list(map(facts, stored)) == list(map(facts, search.study.get_trials()))
    assert {trial.state for trial in stored} == {TrialState.COMPLETE}
    assert all(trial.constraints for trial in stored)


def test_infinite_values_and_changed_attributes_reach_the_database(tmp_path: Path) -> None:
    study = open_study("test", storage(tmp_path), OBJECTIVES, "random", 0)
    trial = study.ask()
    trial.set_user_attr("a", 1)
    keep(trial)
    trial.set_user_attr("a", [2, "é"])
    study.tell(trial, [float("-inf"), float("inf")])
    (stored,) = as_stored(storage(tmp_path))
    assert stored.values == [float("-inf"), float("inf")]
    assert stored.user_attrs == {"a": [2, "é"]}


def test_begun_trial_is_in_the_database_with_its_parameters_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = new_search(tmp_path)
    search.run(30)

    def killed(key: int, *others: object) -> None:
        raise Killed(key)

    monkeypatch.setattr(search.pipeline, "start", killed)
    with pytest.raises(Killed) as caught:
        search.run(31)
    (number,) = caught.value.args
    (running,) = (t for t in as_stored(storage(tmp_path)) if t.state is TrialState.RUNNING)
    assert running.number == number
    assert running.params == search.study.get_trials()[number].params
    assert running.params
    again = new_search(tmp_path)
    assert again.run(31)[-1].trial == number
    assert again.study.get_trials()[number].params == running.params


def test_trial_costs_two_transactions_at_most(tmp_path: Path) -> None:
    """One before it is measured and one after; the queue of planted trials, some more."""
    search = new_search(tmp_path)
    search.run(40)
    before = len(search.study.get_trials(deepcopy=False))
    commits: list[sqlalchemy.Connection] = []

    def count(connection: sqlalchemy.Connection) -> None:
        commits.append(connection)

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", count)
    try:
        search.run(60)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", count)
    asked = len(search.study.get_trials(deepcopy=False)) - before
    assert 20 <= len(commits) <= 2 * asked


def test_trials_that_optuna_wrote_value_by_value_are_gone_on_with(tmp_path: Path) -> None:
    """As every version before this one did."""
    first = new_search(tmp_path / "new")
    records = first.run(20)
    old = optuna.create_study(
        study_name="test",
        storage=open_storage(storage(tmp_path / "old")),
        directions=["maximize", "minimize"],
    )
    for trial in first.study.get_trials()[:15]:
        old.add_trial(trial)
    last = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        system_attrs={"fixed_params": first.study.get_trials()[15].params},
    )
    old.add_trial(last)
    again = new_search(tmp_path / "old")
    assert [r.candidate for r in again.run(16)[:15]] == [r.candidate for r in records[:15]]
    assert again.records[15].trial == 15
    assert again.records[15].candidate == records[15].candidate


def test_children_of_a_resumed_study_have_parents_of_the_last_generation(tmp_path: Path) -> None:
    before = new_search(tmp_path)
    before.run(3 * POPULATION)
    after = new_search(tmp_path)
    generation = 1
    sampler = after.study.sampler
    while found := sampler.get_population(after.study, generation):
        assert found
        parents = [
            {trial.number for trial in search.study.sampler.get_parent_population(
                search.study, generation)}
            for search in (before, after)
        ]  # fmt: skip
        assert parents[0] == parents[1] != set()
        generation += 1
    assert generation > 2


def test_proposals_are_those_of_the_sampler_that_goes_through_all_trials() -> None:
    proposed = []
    for sampler in (
        Generations(population_size=POPULATION, seed=5),
        optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=5),
    ):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(8 * POPULATION):
            trial = study.ask()
            values = formula(small_space().suggest(trial))
            trial.set_constraint("quality", 0.8 - values[0])
            study.tell(trial, values)
        proposed.append([trial.params for trial in study.get_trials()])
    assert proposed[0] == proposed[1]


def test_study_of_600_generations_is_resumed(tmp_path: Path) -> None:
    """The parents of each come from those of the one before: found at once, calls would nest."""
    search = new_search(tmp_path)
    search.run(POPULATION)
    last = search.study.get_trials()[-1]
    for generation in range(1, 600):
        made = optuna.trial.create_trial(
            values=last.values,
            params=last.params,
            distributions=last.distributions,
            system_attrs={"NSGAIISampler:generation": generation},
        )
        search.study.add_trial(made)
    assert len(new_search(tmp_path).run(POPULATION + 1)) == POPULATION + 1
