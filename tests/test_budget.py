"""A budget in minutes: what it is spent on, over all runs of a study, and what the plan says."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators.data.recovery_texts import recovery_texts
from paretoformer.evaluators.data.workload import Split, Workload
from paretoformer.evaluators.tasks.text import TextInputs
from paretoformer.search import preparing, searching
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.session import Session
from paretoformer.search.study import budget as budgets
from paretoformer.search.study import subject as subjects
from paretoformer.search.study.budget import (
    SPENT,
    Budget,
    distill_minutes,
    is_short,
    plan,
    timing_seconds,
)
from paretoformer.search.study.spec import NO_LIMIT, Spec, load_spec, parse_spec
from paretoformer.spaces.candidate import Candidate
from tests.tiny import SMALL_SPACE, write_study

GOOD = '[model]\npath = "org/model"\n[data]\npath = "org/data"\n'


def spec(minutes: float | None, distilling: float | None = 0) -> Spec:
    key = "" if distilling is None else f"distill_minutes = {distilling}"
    text = f"{GOOD}[recovery]\n{key}\n"
    return parse_spec(text, source=Path("mine.toml"), of_search={"minutes": minutes})


@pytest.mark.parametrize(("minutes", "short"), [(None, False), (10, False), (9.9, True)])
def test_study_of_a_few_minutes_is_short(minutes: float | None, short: bool) -> None:
    assert is_short(spec(minutes)) is short


def test_minutes_are_shared_out_and_the_plan_says_how() -> None:
    study = optuna.create_study()
    budget = Budget(spec(20, distilling=20), study, time.monotonic())
    assert budget.distill_minutes == pytest.approx(8)
    assert budget.search_seconds == pytest.approx(60 * 8.6)
    assert plan(spec(20, 20)) == (
        "20 minutes: 8.6 to prepare and to search, 8.4 to distil, 3.0 to confirm. "
        "There is no time for all 20 minutes of distillation."
    )
    assert plan(spec(10)) == "10 minutes: 8.5 to prepare and to search, 1.5 to confirm."
    assert distill_minutes(spec(20, distilling=1)) == 1
    assert distill_minutes(spec(2, distilling=1)) == 0
    assert distill_minutes(spec(5, distilling=4)) == 0  # the search needs the minutes
    assert distill_minutes(spec(6, distilling=4)) == pytest.approx(1.4)
    budget.is_distilled = True  # the search has what is left
    assert budget.search_seconds == pytest.approx(60 * 17)


@pytest.mark.parametrize(
    ("minutes", "distilled"), [(None, 0), (9, 0), (10, 3.25), (15, 5.75), (30, 12)]
)
def test_distillation_has_a_share_of_the_minutes_by_default(
    minutes: float | None, distilled: float
) -> None:
    assert distill_minutes(spec(minutes, distilling=None)) == distilled


@pytest.mark.parametrize(
    ("minutes", "distilled", "rounds"), [(4, 0, 0), (5, 1.25, 1), (15, 5.75, 2)]
)
def test_new_labels_are_worth_less_time_and_more_rounds(
    minutes: float, distilled: float, rounds: int
) -> None:
    budget = Budget(spec(minutes, distilling=None), optuna.create_study(), 0.0, by_labels=True)
    assert budget.distill_minutes == distilled
    assert budget.rounds(distilled) == rounds
    assert ("to distil" in plan(budget.spec, by_labels=True)) is bool(rounds)


def test_study_without_limit_has_twenty_minutes_and_an_older_run_keeps_its_trials() -> None:
    new = parse_spec(GOOD, source=Path("mine.toml"))
    assert new.settled(None).search.minutes == 20
    assert new.settled(None).trials == NO_LIMIT
    old = parse_spec("trials = 40\n" + GOOD, source=Path("mine.toml"))
    assert old.settled(None).trials == 40
    assert new.settled(old).trials == 40
    assert new.settled(old).search.minutes is None


def test_timings_are_shorter_in_a_short_study() -> None:
    assert timing_seconds(spec(None)) == (3, 10)
    assert timing_seconds(spec(60)) == (3, 10)
    assert timing_seconds(spec(7.5)) == pytest.approx((1, 3.21), abs=0.01)


def test_slow_metrics_have_time_in_the_confirmation_and_timings_share_theirs() -> None:
    asked = '["accuracy", "latency_ms", "memory_mb", "end_to_end_ms"]'
    text = f"objectives = {asked}\n{GOOD}[recovery]\ndistill_minutes = 0\n"
    slow = parse_spec(text, source=Path("mine.toml"), of_search={"minutes": 10})
    assert plan(slow) == "10 minutes: 7.5 to prepare and to search, 2.5 to confirm."
    assert timing_seconds(slow) == pytest.approx(
        (2 / 3, 1.61), abs=0.01
    )  # half as long, since there are two


def test_phases_are_added_up_over_all_runs() -> None:
    study = optuna.create_study()
    for _ in range(2):
        Budget(spec(10), study, time.monotonic()).took("search", 20)
    budget = Budget(spec(10), study, time.monotonic())
    budget.took("confirm", 9)
    assert budget.account == "40 s to search, 9 s to confirm"


def test_without_minutes_nothing_is_over() -> None:
    budget = Budget(spec(None, distilling=4), optuna.create_study(), time.monotonic() - 1e6)
    assert not budget.is_searched
    assert not budget.is_over
    assert budget.distill_minutes == 4
    budget.keep()
    assert SPENT not in budget.study.user_attrs
    trials = parse_spec("trials = 40\n" + GOOD, source=Path("mine.toml"))
    assert plan(trials).startswith("40 trials, then the confirmation")


def test_no_trial_is_begun_that_would_not_be_finished_in_time() -> None:
    budget = Budget(spec(8.75), optuna.create_study(), time.monotonic() - 120)  # of 420 to search
    assert budget.has_time_for(begun=20, done=10, under_way=0)  # 10 s each
    assert budget.has_time_for(begun=20, done=10, under_way=28)
    assert not budget.has_time_for(begun=20, done=10, under_way=30)
    assert budget.has_time_for(begun=120, done=0, under_way=28)
    assert not budget.has_time_for(begun=120, done=0, under_way=30)  # the last pace is known
    first = Budget(spec(8.75), optuna.create_study(), time.monotonic() - 120)
    assert first.has_time_for(begun=120, done=0, under_way=30)
    endless = Budget(spec(None), optuna.create_study(), time.monotonic() - 1e6)
    assert endless.has_time_for(begun=0, done=1, under_way=1000)


def test_what_an_interrupted_run_spent_is_remembered() -> None:
    study = optuna.create_study()
    first = Budget(spec(10), study, time.monotonic() - 400)
    assert not first.is_searched
    first.keep()
    second = Budget(spec(10), study, time.monotonic() - 120)
    assert second.spent == pytest.approx(520, abs=1)
    assert second.is_searched
    assert not second.is_over


def test_minutes_of_the_command_stand_for_the_trials_of_the_file(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=6)
    assert load_spec(study, minutes=5).trials == NO_LIMIT
    assert load_spec(study, minutes=5, trials=9).trials == 9
    assert load_spec(study).search.minutes is None


def test_dry_run_checks_everything_and_leaves_nothing(run, tmp_path: Path) -> None:
    study, folder = write_study(tmp_path), tmp_path / "run"
    status, output, _ = run("search", study, "--out", folder, "--minutes", 5, "--dry-run")
    assert status == 0
    assert "5 minutes: 2.4 to prepare and to search, 1.6 to distil, 1.0 to confirm." in output
    assert "bert, 2 layers x 4 heads" in output
    assert "60 to confirm" in output
    assert "onnxruntime:int8" in output
    assert "compile" not in output  # there is no time for it
    assert "accuracy>=dense-0.01" in output
    assert not folder.exists()
    text = study.read_text().replace("search_examples = 40", "search_examples = 4000")
    study.write_text(text)
    status, _, errors = run("search", study, "--out", folder, "--dry-run")
    assert status == 2
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_study_ends_in_its_minutes_and_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by a second whenever it is read."""
    study = write_study(tmp_path, extra=SMALL_SPACE)

    def trials(minutes: float) -> int:
        seconds = itertools.count(time.monotonic())
        clock = SimpleNamespace(monotonic=lambda: next(seconds))
        monkeypatch.setattr(budgets, "time", clock)
        folder = pf.search(study, out=tmp_path / "run", minutes=minutes, quiet=True)
        frame, facts = read_front(folder)
        assert facts.study["search"]["minutes"] == minutes
        assert (frame["role"] == "dense").sum() == 1
        return read_table(folder / "trials.parquet")[0].num_rows

    first = trials(0.5)
    assert 1 <= first < 60 * 0.5
    assert first < trials(1.5) < 60 * 1.5


def test_minutes_that_were_too_few_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = Candidate.dense(2, 2)
    notes: list[str] = []
    session: Any = SimpleNamespace(
        spec=spec(5),
        compressed=lambda records: Session.compressed(session, records),
        prepared=SimpleNamespace(space=SimpleNamespace(dense=dense)),
        alternatives=[dense.replaced(runtime="onnxruntime")],
        has_minutes=True,
        budget=SimpleNamespace(minutes=5.0, planned_minutes=0.0),
        display=SimpleNamespace(note=notes.append),
    )
    nothing = SimpleNamespace(update=lambda records, now: None)
    monkeypatch.setattr(searching, "_trials_file", lambda session: nothing)
    measured: list[Any] = [SimpleNamespace(candidate=c) for c in (dense, *session.alternatives)]
    searching.write_trials(session, measured)
    assert [note.partition(":")[0] for note in notes] == [
        "5 minutes were too few for this model on this machine"
    ]
    cut = dense.replaced(layers=(True, False))
    searching.write_trials(session, [*measured, SimpleNamespace(candidate=cut)])
    assert len(notes) == 1


def test_search_with_few_candidates_goes_on_in_the_minutes_of_distillation() -> None:
    """Of 15 minutes, 3 confirm, 5.8 distil: the search ends at 6.2, or goes on until 10.6."""
    late = Budget(spec(15, distilling=None), optuna.create_study(), time.monotonic() - 60 * 7)
    assert not late.has_time_for(begun=60, done=10, under_way=0, compressed=6)
    assert late.has_time_for(begun=60, done=10, under_way=0, compressed=5)
    later = Budget(spec(15, distilling=None), optuna.create_study(), time.monotonic() - 60 * 10.5)
    assert not later.has_time_for(begun=60, done=10, under_way=0, compressed=5)


def test_distillation_takes_the_minutes_that_are_left() -> None:
    study = optuna.create_study()
    early = Budget(spec(15, distilling=None), study, time.monotonic() - 60)
    assert early.distill_minutes == 5.75
    late = Budget(spec(15, distilling=None), study, time.monotonic() - 60 * 9)
    late.begin_distilling()
    assert late.distill_minutes == 3.25  # of 3.75, less the measurements of one round
    slow = Budget(spec(15, distilling=None), optuna.create_study(), time.monotonic() - 60 * 9)
    slow.pace = 40.0
    slow.begin_distilling()
    assert slow.distill_minutes == 2.25  # candidates of a large model take longer
    again = Budget(spec(15, distilling=None), study, time.monotonic() - 60 * 11)
    again.begin_distilling()  # an interrupted one goes on as it was chosen
    assert again.distill_minutes == 3.25
    assert Budget(spec(30, distilling=None), study, time.monotonic()).distill_minutes == 12
    last = Budget(spec(15, distilling=None), optuna.create_study(), time.monotonic() - 60 * 11.6)
    last.begin_distilling()
    assert not last.distill_minutes  # too few to be useful


@pytest.mark.parametrize(("minutes", "weights", "share"), [(None, 10**9, 1.0), (20, 10**6, 1.0)])
def test_usual_tokens_are_prepared_where_there_is_time(
    monkeypatch: pytest.MonkeyPatch, minutes: float | None, weights: int, share: float
) -> None:
    monkeypatch.setattr(subjects, "token_weights", lambda model: weights)
    assert subjects._prepared_share(torch.nn.Linear(1, 1), minutes) == share


def test_short_study_of_a_large_model_prepares_on_fewer_tokens_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subjects, "token_weights", lambda model: 10**9)
    share = subjects._prepared_share(torch.nn.Linear(1, 1), 5)
    assert share == 0.25
    texts = tuple({"input_ids": np.ones(100, int)} for _ in range(512))
    splits = {"recovery": Split(texts, np.zeros(512))}
    usual = Workload(splits, TextInputs({"input_ids": 0}))  # type: ignore[arg-type]
    fewer = replace(usual, prepared=share)
    counts = [sum(map(tokens_of, recovery_texts(each, "cpu").fit)) for each in (usual, fewer)]
    assert counts == [16_300, 8_100]
    run: Any = SimpleNamespace(
        subject=SimpleNamespace(workload=fewer),
        budget=SimpleNamespace(minutes=5.0, planned_minutes=0.0),
        spec=SimpleNamespace(recovery=SimpleNamespace(least_squares=False)),
    )
    prepared: Any = SimpleNamespace(begun_without=(), left_out={}, notes=())
    note = next(iter(preparing._notes(run, prepared)))
    assert "at most 25% of the usual tokens, and repairs solved from 50%" in note


def tokens_of(batch: Any) -> int:
    return int(batch["attention_mask"].sum())
