"""The storage of a running study, which is Optuna's own."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from paretoformer.search.study.optuna_study import open_storage
from paretoformer.search.study.samplers import POPULATION
from tests.test_loop import Killed, new_search, storage, stored_search


def as_stored(url: str, name: str = "test") -> list[FrozenTrial]:
    """The trials as Optuna itself reads them from the database."""
    return optuna.load_study(study_name=name, storage=open_storage(url)).get_trials()


def test_begun_trial_is_in_the_database_with_its_parameters_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = stored_search(tmp_path)
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
    again = stored_search(tmp_path)
    assert again.run(31)[-1].trial == number
    assert again.study.get_trials()[number].params == running.params


def test_trials_that_another_version_wrote_are_continued(tmp_path: Path) -> None:
    first = stored_search(tmp_path / "new")
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
    again = stored_search(tmp_path / "old")
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


def test_study_of_600_generations_is_resumed(tmp_path: Path) -> None:
    """The parents of each come from those of the one before, which earlier versions did not store:
    found by recursion, calls would nest."""
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
