"""The loop's logic, with a formula in place of the machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from paretoformer.evaluators.artifact import workspace
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.formula import FormulaEvaluator, formula
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.dispatch.dispatcher import InlineDispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.loop import DUPLICATE, Search, stored_records
from paretoformer.search.proposers import Planted, Unseen, standard_proposers, to_distil
from paretoformer.search.proposers.distilled import LEFT_BY_LABELS
from paretoformer.search.proposers.distilling import Distilling, progress_of
from paretoformer.search.proposers.standard import structures
from paretoformer.search.publish.choose import by_importance, chosen, dropped
from paretoformer.search.publish.confirm import ALWAYS, confirm
from paretoformer.search.publish.front import published_table
from paretoformer.search.records.dominance import nondominated
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.expected import with_expected
from paretoformer.search.records.record import Records, TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.records.throttle import Throttle
from paretoformer.search.study.budget import distilling_rounds
from paretoformer.search.study.optuna_study import ResumableStudy, open_study, study_in
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes.attention import ChoicePerLayer
from paretoformer.spaces.axes.domain import Fixed
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.heads import RankedHeads
from paretoformer.spaces.space import Space

OBJECTIVES = [Accuracy(), Latency()]
REQUIREMENT = Requirement.parse(Accuracy.requirement)
NAMES = ["accuracy", "latency_ms"]
SCORES = np.random.default_rng(0).random((3, 4))
WINDOW = AttentionChoice.of("window", window=16, global_tokens=1)


def small_space(layers: int = 3) -> Space:
    choices = (AttentionChoice("full"), WINDOW)
    domains = {
        "heads": RankedHeads(SCORES[:layers]),
        "attention": ChoicePerLayer(choices, layers),
    }
    kinds = (Candidate(HeadMask.all(layers, 4), (WINDOW,) * layers),)
    return Space(Shape(layers, 4), domains, kinds=kinds)


def storage(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return f"sqlite:///{folder / 'optuna.db'}"


MEMORY: dict[Path, InMemoryStorage] = {}


def new_search(folder: Path, space: Space | None = None, **evaluator: object) -> Search:
    """A search whose study is kept in memory, which is quick, for as long as this process."""
    memory = MEMORY.setdefault(folder, InMemoryStorage())
    study = study_in(memory, "test", OBJECTIVES, "nsga2", 0)
    return search_of(study, space or small_space(), FormulaEvaluator(**evaluator))


def stored_search(folder: Path) -> Search:
    """A search whose study is kept in a database."""
    study = open_study("test", storage(folder), OBJECTIVES, "nsga2", 0)
    return search_of(study, small_space(), FormulaEvaluator())


def search_of(study: ResumableStudy, space: Space, evaluator: FormulaEvaluator) -> Search:
    proposers = standard_proposers(space, OBJECTIVES, [REQUIREMENT])
    pipeline = Pipeline(InlineDispatcher(evaluator), "search")
    return Search(study, space, proposers, Unseen(space, 0), pipeline, NAMES)


def planted(search: Search) -> set[str]:
    """Ids of the candidates that proposers asked for."""
    numbers = {t.number for t in search.study.get_trials() if "fixed_params" in t.system_attrs}
    return {record.candidate.id for record in search.records if record.trial in numbers}


def test_first_record_is_dense_and_no_candidate_is_measured_twice(tmp_path: Path) -> None:
    records = new_search(tmp_path).run(40)
    assert records[0].trial == 0
    assert records[0].candidate.is_dense
    assert len({record.candidate.id for record in records}) == len(records) == 40


def test_every_record_holds_what_the_target_answered(tmp_path: Path) -> None:
    for record in new_search(tmp_path).run(30):
        assert tuple(record.values(NAMES)) == formula(record.candidate)


def test_trial_says_in_words_what_its_candidate_keeps(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    for record in search.run(3):
        kept = search.study.get_trials()[record.trial].user_attrs["keeps"]
        assert kept == record.candidate.phrase


def test_duplicate_is_told_the_stored_values_and_does_not_count(tmp_path: Path) -> None:
    search = new_search(tmp_path, small_space(1))
    records = {record.trial: record for record in search.run(9)}
    assert len(records) == 9  # every candidate of this space
    duplicates = [t for t in search.study.get_trials() if DUPLICATE in t.user_attrs]
    assert duplicates
    for trial in duplicates:
        assert trial.values == records[trial.user_attrs[DUPLICATE]].values(NAMES)


def test_failed_trial_is_a_row_and_the_study_goes_on(tmp_path: Path) -> None:
    smallest = Candidate(HeadMask.none(3, 4))
    assert smallest in structures(small_space())
    failing = {smallest.id: Outcome.OUT_OF_MEMORY}
    search = new_search(tmp_path, failing=failing)
    records = search.run(20)
    assert len(records) == 20
    failed = [record for record in records if not record.ok]
    assert [record.candidate for record in failed] == [smallest]
    assert failed[0].result.outcome is Outcome.OUT_OF_MEMORY
    state = search.study.get_trials()[failed[0].trial].state
    assert state is optuna.trial.TrialState.FAIL


def test_dense_that_fails_stops_the_study_and_says_why(tmp_path: Path) -> None:
    dense = Candidate.dense(3, 4)
    search = new_search(tmp_path, failing={dense.id: Outcome.TIME_LIMIT})
    with pytest.raises(StudyFailed, match=r"cannot be measured: as the test wants it\. .*Raise it"):
        search.run(20)
    assert len(new_search(tmp_path).run(20)) == 20  # once mended, the same study goes on


def test_stopped_search_goes_on_where_it_was(tmp_path: Path) -> None:
    first = new_search(tmp_path).run(15)
    both = new_search(tmp_path).run(30)
    assert both[:15] == first
    assert len(both) == 30


class Killed(BaseException):
    """In place of SIGKILL: nothing in the loop catches it."""


@pytest.mark.parametrize(
    ("owner", "method", "when"),
    [
        *((Search, "_close", when) for when in (1, 7, 24)),  # between the record and its end
        *((TrialRecord, "to_json", when) for when in (1, 7, 24)),  # measured, but not stored
        *((optuna.Trial, "suggest_categorical", when) for when in (1, 7, 40)),  # half suggested
        *((optuna.Study, "enqueue_trial", when) for when in (1, 7)),  # half planted
    ],
)
def test_search_cut_off_anywhere_loses_and_doubles_nothing(
    tmp_path: Path, owner: type, method: str, when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = getattr(owner, method)

    def killed(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == when:
            raise Killed
        return real(*args, **kwargs)

    search = stored_search(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, killed)
        with pytest.raises(Killed):
            search.run(25)
    before = {record.candidate.id: record.trial for record in stored_records(search.study)}
    records = stored_search(tmp_path).run(25)
    ids = {record.candidate.id: record.trial for record in records}
    assert len(ids) == len(records) == 25
    assert before.items() <= ids.items()
    assert records[0].candidate.is_dense
    assert {candidate.id for candidate in structures(small_space())} <= ids.keys()
    running = optuna.trial.TrialState.RUNNING
    assert not stored_search(tmp_path).study.get_trials(states=(running,))


def test_records_survive_their_json(tmp_path: Path) -> None:
    for record in new_search(tmp_path).run(12):
        assert TrialRecord.from_json(record.to_json()) == record


def test_storage_is_sqlite_in_wal_mode(tmp_path: Path) -> None:
    open_study("test", storage(tmp_path), OBJECTIVES, "random", 0)
    with sqlite3.connect(tmp_path / "optuna.db") as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_every_sampler_searches(tmp_path: Path, sampler: str) -> None:
    study = open_study("test", storage(tmp_path), OBJECTIVES, sampler, 3)
    assert len(search_of(study, small_space(), FormulaEvaluator()).run(25)) == 25


def test_answer_is_confirmed_however_late_it_is(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    records = search.run(40)
    picked = by_importance(chosen(records, OBJECTIVES, ()), OBJECTIVES, [REQUIREMENT], ())
    pipeline = Pipeline(InlineDispatcher(FormulaEvaluator()), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, None, is_over=lambda: True)
    assert set(confirmed) == {record.candidate.id for record in picked[: 1 + ALWAYS]}
    assert len(picked) > 1 + ALWAYS


def test_near_misses_are_confirmed_before_hopeless_points_and_slow_alternatives() -> None:
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.895, 5.0, "least_squares"),  # the answer
        recovered(2, 0.60, 1.0, "least_squares"),
        recovered(3, 0.885, 4.0, "least_squares"),
        recovered(4, 0.90, 6.0, "distilled:1"),
        recovered(5, 0.90, 8.0, "none"),
    ]
    uncut = [records[4].candidate, records[5].candidate]
    ranked = by_importance(records, OBJECTIVES, [REQUIREMENT], uncut)
    assert [record.trial for record in ranked] == [0, 1, 4, 3, 5, 2]


def test_nearest_miss_is_told_by_the_divergence_where_scores_scatter() -> None:
    """The third scored worse than the fourth, though its answers are nearer to dense."""
    numbers = [(0.90, 10.0, 0.0), (0.895, 5.0, 0.01), (0.870, 3.0, 0.02), (0.872, 4.0, 0.06),
               (0.80, 1.0, 0.4)]  # fmt: skip
    records = []
    for trial, (accuracy, latency, nats) in enumerate(numbers):
        recovery = "least_squares" if 0 < trial < 4 else "none"
        records.append(with_nats(recovered(trial, accuracy, latency, recovery), nats))
    ranked = by_importance(records, OBJECTIVES, [REQUIREMENT], ())
    assert [record.trial for record in ranked] == [0, 1, 2, 3, 4]


def test_what_is_within_noise_of_the_front_is_confirmed_where_it_may_be_the_answer() -> None:
    """All within one another's intervals; the requirement is 0.89, and the third reaches 0.88."""
    numbers = [(0.90, 10.0), (0.88, 5.0), (0.87, 5.1), (0.80, 4.0), (0.80, 4.1)]
    records = []
    for trial, (accuracy, latency) in enumerate(numbers):
        exact = recovered(trial, accuracy, latency, "none" if trial == 4 else "least_squares")
        measured = {
            "accuracy": Measurement(accuracy, accuracy - 0.02, accuracy + 0.02, "fraction"),
            "latency_ms": Measurement(latency, latency - 0.3, latency + 0.3, "ms"),
        }
        records.append(replace(exact, result=Result(Outcome.OK, measured)))
    assert [each.trial for each in chosen(records, OBJECTIVES)] == [0, 1, 2, 3, 4]
    assert [each.trial for each in chosen(records, OBJECTIVES, (), [REQUIREMENT])] == [0, 1, 2, 3]
    before = [records[4].candidate.id]  # by a version that confirmed more
    again = chosen(records, OBJECTIVES, (), [REQUIREMENT], before)
    assert [each.trial for each in again] == [0, 1, 2, 3, 4]
    always = [records[4].candidate]
    assert [each.trial for each in chosen(records, OBJECTIVES, always, [REQUIREMENT])][-1] == 4


def test_what_is_nearer_to_dense_is_confirmed_too_if_it_satisfies_the_requirement() -> None:
    """The first is the fastest, as good as dense by luck, and dominates the others."""
    numbers = [(0.90, 10.0, 0.0), (0.90, 5.0, 0.03), (0.895, 6.0, 0.02), (0.88, 7.0, 0.001),
               (0.894, 8.0, 0.025), (0.893, 9.0, 0.01)]  # fmt: skip
    records = []
    for trial, (accuracy, latency, nats) in enumerate(numbers):
        recovery = f"distilled:{trial - 3}" if trial > 3 else "least_squares" if trial else "none"
        exact = recovered(trial, accuracy, latency, recovery)
        records.append(with_nats(exact, nats))
    assert [each.trial for each in chosen(records, OBJECTIVES)] == [0, 1]
    picked = chosen(records, OBJECTIVES, (), [REQUIREMENT])
    assert [each.trial for each in picked] == [0, 1, 2, 5]
    ranked = by_importance(picked, OBJECTIVES, [REQUIREMENT], ())
    assert [each.trial for each in ranked] == [0, 1, 2, 5]


def test_confirmation_measures_dense_and_the_front_once(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    records = search.run(30)
    picked = chosen(records, OBJECTIVES)
    assert picked[0].candidate.is_dense
    pipeline = Pipeline(InlineDispatcher(FormulaEvaluator()), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, 0)
    assert set(confirmed) == {record.candidate.id for record in picked}
    again = confirm(search.study, picked, lambda: pytest.fail("nothing is left to do"), 0)
    assert again == confirmed


def test_what_is_dropped_would_not_be_chosen_later(tmp_path: Path) -> None:
    first = new_search(tmp_path / "first").run(20)
    failing = {each.candidate.id: Outcome.ERROR for each in first[5:9]}
    always = [each.candidate for each in first[9:14]]
    search = new_search(tmp_path / "second", failing=failing)
    lost = set[str]()

    def on_record(records: Sequence[TrialRecord]) -> None:
        picked = chosen(records, OBJECTIVES, always, [REQUIREMENT])
        assert not lost & {each.candidate.id for each in picked}
        lost.update(candidate.id for candidate in dropped(records, picked))

    search.on_record = on_record
    search.run(30)
    assert lost


def test_what_is_put_off_is_done_in_the_end_and_once() -> None:
    throttle, done = Throttle(), []

    def slow(name: str) -> None:
        time.sleep(0.01)
        done.append(name)

    for name in ("first", "second", "third"):
        throttle(partial(slow, name))
    throttle.catch_up()
    throttle.catch_up()
    assert done == ["first", "third"]


def test_published_table_has_one_dense_row_first_and_roles_by_dominance(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    picked = chosen(search.run(30), OBJECTIVES)
    pipeline = Pipeline(InlineDispatcher(FormulaEvaluator()), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, 0)
    frame = published_table(picked, confirmed, OBJECTIVES, NAMES, ["latency_ms"]).to_pandas()
    assert frame["role"].tolist().count("dense") == 1
    assert frame["role"].iloc[0] == "dense"
    values = frame[NAMES].to_numpy()
    keep = nondominated(values, ["maximize", "minimize"])
    assert (keep[1:] == (frame["role"].iloc[1:] == "front")).all()
    assert set(frame["role"]) <= {"dense", "front", "dominated"}  # exact values tie with nothing
    assert frame["speedup"].iloc[0] == 1


def test_candidate_that_fails_in_confirmation_is_listed_as_dominated(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    picked = chosen(search.run(30), OBJECTIVES)
    failing = {picked[1].candidate.id: Outcome.ERROR}
    pipeline = Pipeline(InlineDispatcher(FormulaEvaluator(failing=failing)), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, 0)
    frame = published_table(picked, confirmed, OBJECTIVES, NAMES, ["latency_ms"]).to_pandas()
    row = frame[frame["candidate_id"] == picked[1].candidate.id].iloc[0]
    assert (row["role"], row["outcome"]) == ("dominated", "error")


def test_planted_trials_are_parents_of_the_first_children(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.run(30)
    trials = search.study.get_trials(deepcopy=False)
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in trials]
    first = [trial.number for trial in trials if "fixed_params" in trial.system_attrs][:5]
    assert [generations[number] for number in first] == [0] * 5
    assert max(generations) >= 1


def test_best_mechanism_is_crossed_with_the_planted_masks(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    records = search.run(40)
    seen = {record.candidate for record in records}
    (uniform,) = search.space.kinds
    crosses = search.proposers[2].propose(search.known, [])
    assert crosses
    assert set(crosses) <= seen
    for each in crosses:
        assert each == Candidate(each.heads, uniform.attention)
        assert each.heads in {other.heads for other in structures(search.space)}
        assert each.heads.total < 12
    assert {candidate.id for candidate in crosses} <= planted(search)


def test_nothing_is_crossed_before_each_mechanism_was_measured_in_all_layers(
    tmp_path: Path,
) -> None:
    search = new_search(tmp_path)
    (uniform,) = search.space.kinds
    records = {record.candidate.id: record for record in search.run(40)}
    records.pop(uniform.id)
    crossed = standard_proposers(search.space, OBJECTIVES, [REQUIREMENT])[2]
    assert not crossed.propose(records, [])
    assert search.proposers[2].propose(records, [])  # which had made them before


def test_sampler_is_not_asked_while_a_proposer_waits_for_what_it_proposed(tmp_path: Path) -> None:
    """Random candidates would take the places of those that the first measurements call for."""
    search = new_search(tmp_path)
    search.run(40)
    of_sampler = [record.candidate.id not in planted(search) for record in search.records]
    assert any(of_sampler)
    assert not any(of_sampler[: len(planted(search))])


class Patient(Planted):
    """Waits while two candidates are under way."""

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        return len(under_way) >= 2


@pytest.mark.parametrize("patient", [False, True])
def test_sampler_is_asked_while_few_are_under_way(tmp_path: Path, patient: bool) -> None:
    search, most = new_search(tmp_path), {}

    def count(candidate: Candidate, records: Records) -> dict[str, float]:
        most[candidate.id] = 1 + len(search.under_way)
        return {}

    search.predict = count
    if patient:
        search.proposers = [*search.proposers, Patient(())]
    search.run(40)
    of_sampler = [number for key, number in most.items() if key not in planted(search)]
    assert max(of_sampler) == (2 if patient else search.pipeline.capacity)


def test_what_its_runtime_cannot_run_does_not_count_as_a_trial(tmp_path: Path) -> None:
    first = new_search(tmp_path / "first").run(20)
    unsuitable = {each.candidate.id: Outcome.UNSUITABLE for each in first[5:9]}
    records = new_search(tmp_path / "second", failing=unsuitable).run(20)
    assert sum(record.counts for record in records) == 20
    assert sum(not record.counts for record in records) >= 4


def test_candidate_that_no_parameters_can_say_is_tried_as_it_is(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.run(12)
    other = Candidate(HeadMask.all(3, 4), runtime="onnxruntime")
    assert search.space.suggest(optuna.trial.FixedTrial(search.space.params(other))) != other
    search.proposers = [Planted((other,))]
    records = search.run(13)
    assert records[-1].candidate == other
    assert TrialRecord.from_json(records[-1].to_json()).candidate == other


OTHER = Candidate(HeadMask.all(3, 4), runtime="onnxruntime")


def test_what_is_measured_besides_is_no_trial_and_waits_for_no_queue(tmp_path: Path) -> None:
    """Versions before kept a queue in the study; its candidates are proposed again."""
    search = new_search(tmp_path)
    search.run(3)
    search.study.enqueue_trial(search.space.params(structures(search.space)[-1]))
    records = search.measure([OTHER])
    assert [record.candidate for record in records[3:]] == [OTHER]
    assert not search.study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))
    assert search.measure([OTHER]) == records
    assert len(search.run(6)) == 6 + 1 - records[3].counts


def test_what_was_begun_besides_is_finished_by_the_next_run(tmp_path: Path) -> None:
    killed = new_search(tmp_path)
    killed.run(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "finished", lambda self: [])
        killed.measure([OTHER])
    search = search_of(killed.study, killed.space, FormulaEvaluator())
    assert OTHER in [record.candidate for record in search.run(3)]


def test_space_is_searched_whole_though_dense_lies_outside(tmp_path: Path) -> None:
    """Where all candidates have a value that dense has not, the space does not hold dense."""
    domains = {**small_space(1).domains, "readout": Fixed("first")}
    space = Space(Shape(1, 4), domains)
    assert not space.holds(space.dense)
    records = new_search(tmp_path, space).run(1000)
    inside = [record.candidate for record in records if space.holds(record.candidate)]
    assert len(set(inside)) == space.size
    assert len(records) == space.size + 1


def test_requirements_are_constraints_that_hold_where_they_are_satisfied(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.requirements = [REQUIREMENT, Requirement.parse("latency_ms<=0.5*dense")]
    records = {record.trial: record for record in search.run(20)}
    dense = records[0].measurements
    for trial in search.study.get_trials(states=(TrialState.COMPLETE,)):
        record = records.get(trial.number)
        if record is not None:
            found = {each.text: each.holds(record.measurements, dense) for each in
                     search.requirements}  # fmt: skip
            assert {name: value <= 0 for name, value in trial.constraints.items()} == found


def test_what_a_runtime_cannot_tell_misses_a_requirement(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.requirements = [Requirement.parse("memory_mb<=50")]
    search.run(5)
    done = search.study.get_trials(states=(TrialState.COMPLETE,))
    assert all(trial.constraints["memory_mb<=50"] > 0 for trial in done)


def distilling(tmp_path: Path, minutes: float, trials: int = 9) -> Distilling:
    study = open_study("test", storage(tmp_path), OBJECTIVES, "nsga2", 0)
    subject = SimpleNamespace(
        objectives=OBJECTIVES,
        metrics={metric.name: metric for metric in OBJECTIVES},
        requirements=(REQUIREMENT,),
        learns_new_labels=False,
    )
    return Distilling(study, subject, minutes, distilling_rounds(minutes), trials)


def test_rounds_of_distillation_are_decided_once_and_know_the_one_before(tmp_path: Path) -> None:
    """The first round leaves half of the loss, so the next one takes smaller losses."""
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.883, 8.0, "least_squares"),
        recovered(2, 0.877, 7.0, "least_squares"),
        recovered(3, 0.876, 5.0, "least_squares"),
    ]
    assert distilling(tmp_path, 16).is_left(records)
    picks = distilling(tmp_path, 16).left(records, slots=1)
    assert [pick.with_minutes(1) for pick in picks] == [records[3].candidate.with_minutes(1)]
    assert distilling(tmp_path, 16).left(records, slots=2) == picks
    half = recovered(4, 0.888, 5.0, picks[0].recovery).result
    later = [*records, TrialRecord(4, picks[0], half)]
    (next_one,) = distilling(tmp_path, 16).left(later, slots=1)
    assert next_one.with_minutes(1) == records[1].candidate.with_minutes(1)
    done = [*later, TrialRecord(5, next_one, records[1].result)]
    assert not distilling(tmp_path, 16).is_left(done)
    more = [*done, recovered(6, 0.888, 4.5, "least_squares")]
    assert not distilling(tmp_path, 16).is_left(more)
    assert distilling(tmp_path, 16, trials=12).is_left(more)
    assert distilling(tmp_path, 12).is_left(more)


def test_rounds_of_an_older_version_are_finished_and_not_repeated(tmp_path: Path) -> None:
    records = [recovered(0, 0.90, 10.0, "none"), recovered(1, 0.87, 8.0, "least_squares")]
    here, pick = distilling(tmp_path, 8), records[1].candidate.with_minutes(8)
    plan = {"minutes": 8, "trials": 2, "candidates": [pick.to_json()]}
    here.study.set_user_attr("distilled", plan)
    assert here.left(records, slots=1) == [pick]
    assert not here.is_left([*records, TrialRecord(2, pick, records[1].result)])


def test_next_round_expects_the_largest_share_that_was_left(tmp_path: Path) -> None:
    """A quarter of a loss of 0.04, and nothing of one of 0.01: of 0.038, a quarter would do."""
    cuts = enumerate([(0.86, 6.0), (0.89, 8.0), (0.862, 5.5), (0.85, 5.0)], start=1)
    records = [recovered(0, 0.90, 10.0, "none")]
    records += [recovered(trial, *numbers, "least_squares") for trial, numbers in cuts]
    for trial, accuracy in ((1, 0.89), (2, 0.90)):
        trained = records[trial].candidate.with_minutes(8)
        result = recovered(trial, accuracy, records[trial].values(["latency_ms"])[0], "none").result
        records.append(TrialRecord(trial + 9, trained, result))
    (pick,) = to_distil(records, OBJECTIVES, REQUIREMENT, minutes=8, slots=1)
    assert pick == records[3].candidate.with_minutes(8)


def test_only_what_satisfies_the_other_requirements_is_distilled() -> None:
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.89, 8.0, "least_squares"),
        recovered(2, 0.88, 5.0, "least_squares"),
    ]
    faster = Requirement.parse("latency_ms<=6")
    (pick,) = to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2, others=[faster])
    assert pick.replaced(recovery="least_squares") == records[2].candidate


def recovered(trial: int, accuracy: float, latency: float, recovery: str) -> TrialRecord:
    heads = HeadMask.ranked([4, 3, max(1, trial % 4)], SCORES)
    candidate = Candidate(heads, recovery=recovery) if trial else Candidate.dense(3, 4)
    measured = {
        "accuracy": Measurement.exact(accuracy, "fraction"),
        "latency_ms": Measurement.exact(latency, "ms"),
    }
    return TrialRecord(trial, candidate, Result(Outcome.OK, measured))


def test_distilled_are_the_fastest_that_may_come_to_satisfy_the_requirement() -> None:
    """Dense has 0.90; with two fifths of the loss left, 0.88 would become 0.892: enough."""
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.887, 8.0, "least_squares"),
        recovered(2, 0.88, 5.0, "least_squares"),
        recovered(3, 0.60, 2.0, "least_squares"),
    ]
    picks = to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2)
    assert [pick.replaced(recovery="least_squares") for pick in picks] == [
        records[2].candidate,
        records[1].candidate,
    ]
    assert {pick.recovery for pick in picks} == {"distilled:6"}
    assert len(to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=1)) == 1


def test_distillation_by_labels_dares_more() -> None:
    cuts = enumerate([(0.88, 6.0), (0.86, 5.0), (0.81, 2.0)], start=1)
    records = [recovered(0, 0.90, 10.0, "none")]
    records += [recovered(trial, *numbers, "least_squares") for trial, numbers in cuts]
    wanted = records, OBJECTIVES, REQUIREMENT
    (pick,) = to_distil(*wanted, minutes=6, slots=1)
    assert pick == records[1].candidate.with_minutes(6)
    picks = to_distil(*wanted, minutes=6, slots=2, left=LEFT_BY_LABELS)
    assert picks == [records[n].candidate.with_minutes(6) for n in (3, 1)]


def test_worker_without_a_likely_candidate_distils_the_likeliest_other() -> None:
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.88, 8.0, "least_squares"),
        recovered(2, 0.50, 3.0, "least_squares"),
        recovered(3, 0.60, 4.0, "least_squares"),
    ]
    picks = to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2)
    chosen = [pick.replaced(recovery="least_squares") for pick in picks]
    assert chosen == [records[1].candidate, records[3].candidate]
    assert not to_distil([records[0], *records[2:]], OBJECTIVES, REQUIREMENT, minutes=6, slots=2)


def test_only_what_is_faster_than_the_answer_so_far_is_distilled() -> None:
    records = [
        recovered(0, 0.90, 10.0, "none"),
        recovered(1, 0.88, 8.0, "least_squares"),
        recovered(2, 0.895, 5.0, "least_squares"),
    ]
    assert not to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2)


def with_nats(record: TrialRecord, nats: float) -> TrialRecord:
    measured = {**record.measurements, "divergence": Measurement.exact(nats, "nats")}
    return replace(record, result=replace(record.result, measurements=measured))


def test_scores_are_expected_to_follow_the_divergence() -> None:
    """Those of like divergence share their luck; a far one hardly counts."""
    records = [
        with_nats(recovered(0, 0.90, 10.0, "none"), 0.0),
        with_nats(recovered(1, 0.90, 5.0, "least_squares"), 0.02),
        with_nats(recovered(2, 0.88, 4.0, "least_squares"), 0.02),
        with_nats(recovered(3, 0.10, 1.0, "least_squares"), 2.0),
        recovered(5, 0.70, 1.0, "none"),
    ]
    found = [r.measurements["accuracy"].value for r in with_expected(records, "accuracy")]
    assert found == pytest.approx([0.90, 0.89, 0.89, 0.10, 0.70], abs=0.001)
    assert with_expected(records[1:], "accuracy") == records[1:]  # no dense to compare with


def test_distillation_is_not_led_by_a_lucky_score() -> None:
    """The second scored as dense does; its divergence says that it would not again."""
    records = [
        with_nats(recovered(0, 0.90, 10.0, "none"), 0.0),
        with_nats(recovered(1, 0.90, 5.0, "least_squares"), 0.050),
        with_nats(recovered(2, 0.86, 6.0, "least_squares"), 0.045),
        with_nats(recovered(3, 0.86, 5.5, "least_squares"), 0.055),
    ]
    picks = to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2)
    assert records[1].candidate.with_minutes(6) in picks


def test_nothing_is_distilled_where_nothing_was_repaired() -> None:
    records = [recovered(0, 0.9, 10.0, "none"), recovered(2, 0.87, 5.0, "none")]
    assert not to_distil(records, OBJECTIVES, REQUIREMENT, minutes=6, slots=2)


def test_progress_of_distillation_counts_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picks = [Candidate(HeadMask.none(3, 4), recovery=f"distilled:{n}") for n in (1, 2)]
    states = [{"seconds": 30.0, "divergence": 0.2}, {"seconds": 12.0, "divergence": 0.1}]
    there = {workspace(tmp_path, pick): state for pick, state in zip(picks, states, strict=True)}
    monkeypatch.setattr("paretoformer.search.proposers.distilling.read_progress", there.get)
    look = progress_of(picks, tmp_path)
    assert look() == (42, 180, "0.200, 0.100 nats")
    del there[workspace(tmp_path, picks[0])]
    assert look() == (72, 180, "0.100 nats")
