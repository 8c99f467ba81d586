"""Disturbed timings: timed anew by the next run, and never published as bare numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest

from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Outcome, Phase, Result
from paretoformer.search.dispatch.dispatcher import InlineDispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.publish.best import load_best
from paretoformer.search.publish.choose import chosen
from paretoformer.search.publish.confirm import confirm, confirmations
from paretoformer.search.publish.front import published_table
from paretoformer.search.publish.summary import answer
from paretoformer.search.records.disturbance import undisturbed
from paretoformer.search.records.parquet import read_front, write_table
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.records.scores import Scores
from paretoformer.search.report.cells import front_table, print_table
from paretoformer.search.report.evidence import shrinkage
from paretoformer.search.report.page import write_report
from tests.test_loop import NAMES, OBJECTIVES, new_search
from tests.test_scores import ScoringEvaluator

SENTENCE = "imed beside other work: 1.0 cores were busy; run the same command again to time it anew"


@dataclass
class BusyEvaluator(ScoringEvaluator):
    """Times some candidates beside other work, three times as slow. ran: what it was asked for."""

    examples: int = 50
    beside: frozenset[str] = frozenset()
    slower: frozenset[str] = frozenset()
    ran: list[tuple[str, Phase]] = field(default_factory=list)

    def run(self, job: Job) -> Result:
        self.ran.append((job.candidate.id, job.phase))
        result = super().run(job)
        latency = result.measurements.get("latency_ms")
        if latency is None:
            return result
        busy = job.candidate.id in self.beside
        on_disturbed = job.reference is not None and job.reference["latency_ms"].disturbed
        latency = replace(
            latency,
            value=latency.value * (3 if busy else 1),
            disturbed=busy or on_disturbed,
            conditions={
                "foreign_cores": float(busy),
                "slowdown": 1.3 if job.candidate.id in self.slower else 1.0,
            },
        )
        return replace(result, measurements={"latency_ms": latency})


@dataclass
class Confirming:
    """A study whose front is confirmed again and again."""

    folder: Path

    def __post_init__(self) -> None:
        self.search = new_search(self.folder)
        self.picked = chosen(self.search.run(30), OBJECTIVES)
        self.scores = Scores(self.folder / "scores", ["accuracy"])
        self.ids = [record.candidate.id for record in self.picked]

    def confirm(self, **evaluator: object) -> tuple[dict[str, TrialRecord], BusyEvaluator]:
        """What is confirmed then, with scores, and who did it."""
        busy = BusyEvaluator(**evaluator)
        lane = Pipeline(InlineDispatcher(busy), "confirm")
        confirm(self.search.study, self.picked, lambda: lane, 0, scores=self.scores)
        return self.scores.restored(confirmations(self.search.study), "confirm"), busy


@pytest.fixture
def study(tmp_path: Path) -> Confirming:
    return Confirming(tmp_path)


def test_next_run_times_only_what_was_disturbed_and_keeps_its_scores(study: Confirming) -> None:
    some = study.ids[1:3]
    before, _ = study.confirm(beside=frozenset(some))
    assert [key for key in study.ids if before[key].disturbed] == some
    after, busy = study.confirm()
    assert sorted(busy.ran) == sorted((key, Phase.TIMING) for key in some)
    assert not any(record.disturbed for record in after.values())
    for key in study.ids:
        old, new = (each[key].measurements for each in (before, after))
        assert new["accuracy"] == old["accuracy"]
        assert len(new["accuracy"].samples) == 50
        assert new["latency_ms"].value == old["latency_ms"].value / (3 if key in some else 1)
        assert {s.phase for s in after[key].result.spans} == {Phase.SHARED, Phase.TIMING}
        assert len(after[key].result.spans) == 2
    assert not study.confirm()[1].ran


def test_all_are_timed_anew_where_dense_was_disturbed(study: Confirming) -> None:
    before, _ = study.confirm(beside=frozenset(study.ids[:1]))
    assert all(before[key].disturbed for key in study.ids)
    after, busy = study.confirm()
    assert busy.ran[0] == (study.ids[0], Phase.TIMING)
    assert sorted(busy.ran) == sorted((key, Phase.TIMING) for key in study.ids)
    assert not any(record.disturbed for record in after.values())


def test_timing_that_fails_leaves_the_disturbed_one(study: Confirming) -> None:
    key = study.ids[1]
    before, _ = study.confirm(beside=frozenset({key}))
    after, _ = study.confirm(failing={key: Outcome.WORKER_DIED})
    assert after[key] == before[key]


def test_what_was_disturbed_is_timed_anew_however_late_it_is(study: Confirming) -> None:
    study.confirm(beside=frozenset(study.ids[1:]))
    busy = BusyEvaluator()
    lane = Pipeline(InlineDispatcher(busy), "confirm")
    confirm(study.search.study, study.picked, lambda: lane, None, is_over=lambda: True)
    assert len(busy.ran) == len(study.ids) - 1


def test_timing_on_a_slower_machine_is_repeated_once_at_the_end(study: Confirming) -> None:
    slower = study.ids[1:3]
    _, busy = study.confirm(slower=frozenset(slower))
    timed = [key for key, phase in busy.ran if phase is Phase.TIMING]
    assert sorted(timed[-2:]) == sorted(slower)
    assert sorted(timed[:-2]) == sorted(study.ids)
    assert sum(phase is Phase.SHARED for _, phase in busy.ran) == len(study.ids)


def test_slow_timing_of_the_baseline_is_repeated_before_others_refer_to_it(
    study: Confirming,
) -> None:
    baseline = study.picked[-1].candidate
    busy = BusyEvaluator(slower=frozenset({baseline.id}))
    lane = Pipeline(InlineDispatcher(busy), "confirm")
    confirm(study.search.study, study.picked, lambda: lane, 0, baseline=baseline)
    timed = [key for key, phase in busy.ran if phase is Phase.TIMING]
    assert timed[:3] == [study.ids[0], baseline.id, baseline.id]
    assert len(timed) == len(study.ids) + 1


def roles(study: Confirming, confirmed: dict[str, TrialRecord]) -> dict[str, str]:
    table = published_table(study.picked, confirmed, OBJECTIVES, NAMES, ["latency_ms"])
    return dict(zip(*(table[name].to_pylist() for name in ("candidate_id", "role")), strict=True))


def timed(record: TrialRecord, factor: float) -> TrialRecord:
    """As if it had been timed beside other work."""
    latency = record.measurements["latency_ms"]
    value = latency.value * factor
    latency = replace(latency, value=value, low=value, high=value, disturbed=True)
    measured = {**record.measurements, "latency_ms": latency}
    return replace(record, result=replace(record.result, measurements=measured))


@pytest.mark.parametrize("factor", [0.001, 20.0])
def test_disturbed_point_is_never_dominated_and_dominates_nothing(
    study: Confirming, factor: float
) -> None:
    confirmed, _ = study.confirm()
    before = roles(study, confirmed)
    one = next(key for key, role in before.items() if role == "front")
    after = roles(study, {**confirmed, one: timed(confirmed[one], factor)})
    assert after[one] == ("front" if factor < 1 else "tied")
    for key in before.keys() - {one}:
        assert before[key] != "front" or after[key] == "front"


def test_rows_say_what_was_disturbed(study: Confirming) -> None:
    key = study.ids[1]
    confirmed, _ = study.confirm(beside=frozenset({key}))
    table = published_table(study.picked, confirmed, OBJECTIVES, NAMES, ["latency_ms"])
    frame = table.to_pandas().set_index("candidate_id")
    assert frame["latency_ms_disturbed"].sum() == 1
    assert frame.loc[key, "latency_ms_disturbed"]
    assert key not in undisturbed(frame, NAMES).index
    assert len(undisturbed(frame, ["accuracy"])) == len(frame)


def marked(example: Path, folder: Path, *trials: int) -> Path:
    """A copy of the example in which these trials, or all, were timed beside other work."""
    run = Path(shutil.copytree(example, folder / "run"))
    frame, facts = read_front(run)
    disturbed = frame["trial"].isin(trials or frame["trial"])
    frame["latency_ms_disturbed"] = disturbed
    frame.loc[disturbed, "latency_ms_conditions"] = json.dumps({"foreign_cores": 1.03})
    write_table(pa.Table.from_pandas(frame, preserve_index=False), run / "front.parquet", facts)
    return run


@pytest.fixture
def fastest(example: Path) -> int:
    """The trial that is the answer otherwise."""
    return load_best(example).trial


def test_front_marks_the_numbers_and_says_why(
    example: Path, tmp_path: Path, fastest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(front_table(*read_front(marked(example, tmp_path, fastest))))
    output = capsys.readouterr().out
    (line,) = (each for each in output.splitlines() if "x !" in each)
    assert line.split()[0] == str(fastest)
    assert f"! t{SENTENCE}" in " ".join(output.split())
    print_table(front_table(*read_front(example)))  # of before this was known
    assert "!" not in capsys.readouterr().out


def test_best_prefers_what_was_not_disturbed_and_says_so(
    example: Path, tmp_path: Path, fastest: int
) -> None:
    run = marked(example, tmp_path, fastest)
    best, bare = load_best(run), load_best(example)
    assert best.trial != bare.trial
    assert best.metrics["latency_ms"].value > bare.metrics["latency_ms"].value
    assert not best.disturbed
    assert "1 point with better numbers that were timed beside other work" in best.warning
    assert best.warning in answer(run)
    assert not bare.warning


def test_alternative_that_was_disturbed_is_not_compared(example: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(example, tmp_path / "run"))
    frame, facts = read_front(run)
    fast, slow = frame[frame["role"] == "front"].sort_values("latency_ms").index[:2]
    frame.loc[[fast, slow], "role"] = "alternative"
    frame.loc[[fast, slow], "accuracy"] = frame["accuracy"].max()
    frame["latency_ms_disturbed"] = frame.index == fast
    write_table(pa.Table.from_pandas(frame, preserve_index=False), run / "front.parquet", facts)
    best = load_best(run)
    assert best.alternative is not None
    assert best.alternative.latency_ms == frame.loc[slow, "latency_ms"]
    assert best.gain.endswith(
        "1 alternative with better numbers was timed beside other work and not compared."
    )


def test_disturbed_answer_says_so(example: Path, tmp_path: Path) -> None:
    run = marked(example, tmp_path)
    best = load_best(run)
    assert best.trial == load_best(example).trial
    assert best.disturbed
    assert best.warning == f"T{SENTENCE}."
    assert best.warning in answer(run)


def test_metric_that_no_load_changes_is_chosen_by_all_the_same(
    example: Path, tmp_path: Path
) -> None:
    run = marked(example, tmp_path)
    asked = ("parameters", ["accuracy>=dense-0.05"])
    assert load_best(run, *asked).trial == load_best(example, *asked).trial


def test_report_says_which_numbers_were_disturbed(
    example: Path, tmp_path: Path, fastest: int
) -> None:
    run = marked(example, tmp_path, fastest)
    page = write_report(RunFolder(run)).read_text(encoding="utf-8")
    assert f"t{SENTENCE}" in page
    assert ">timed beside other work<" in page  # in the legend of the plot


def test_optimism_of_the_search_is_told_without_disturbed_timings(
    example: Path, tmp_path: Path, fastest: int
) -> None:
    frame, facts = read_front(marked(example, tmp_path, fastest))
    expected = shrinkage(frame, facts)
    disturbed = frame["latency_ms_disturbed"].astype(bool)
    frame.loc[disturbed, "latency_ms"] *= 1000
    assert shrinkage(frame, facts) == pytest.approx(expected, nan_ok=True)


def test_patience_may_change_on_a_run_that_goes_on(tmp_path: Path) -> None:
    there, here = ({"timing": {"patience_minutes": minutes}} for minutes in (10.0, 0.0))
    RunFolder(tmp_path).check_study(here, there)
