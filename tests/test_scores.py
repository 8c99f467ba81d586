"""The scores of single examples: beside Optuna's storage, and never lost to a confirmation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Result
from paretoformer.search.dispatch.dispatcher import InlineDispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.publish.choose import chosen
from paretoformer.search.publish.confirm import CONFIRMED, confirm, confirmations
from paretoformer.search.publish.front import published_table
from paretoformer.search.records.record import RECORD, TrialRecord
from paretoformer.search.records.scores import PART, Scores
from tests.test_loop import NAMES, OBJECTIVES, new_search, recovered

TEXT_OF_MYSQL = 65_535


@dataclass
class ScoringEvaluator(FormulaEvaluator):
    """Says of each of many examples whether its answer was right."""

    examples: int = 30_000

    def run(self, job: Job) -> Result:
        result = super().run(job)
        found = result.measurements.get("accuracy")
        if found is None:
            return result
        rng = np.random.default_rng(int(job.candidate.id, 16))
        right = (rng.random(self.examples) < found.value).astype(float)
        return replace(result, measurements={"accuracy": replace(found, samples=(*right,))})


def scored(record: TrialRecord, *scores: float) -> TrialRecord:
    measured = dict(record.measurements)
    measured["accuracy"] = replace(measured["accuracy"], samples=scores)
    return replace(record, result=replace(record.result, measurements=measured))


def test_what_was_taken_out_of_records_is_put_back(tmp_path: Path) -> None:
    records = {
        record.candidate.id: record
        for trial in range(3)
        for record in [scored(recovered(trial, 0.9, 9.0, "none"), 1.0, 0.0, trial / 7)]
    }
    scores = Scores(tmp_path / "scores", ["accuracy", "fidelity"])
    bare = {key: scores.take(record, "confirm") for key, record in records.items()}
    assert not any(each.measurements["accuracy"].samples for each in bare.values())
    scores.keep()
    again = Scores(tmp_path / "scores", ["accuracy"])
    assert again.restored(bare, "confirm") == records
    assert again.restored(bare, "search") == bare


def test_parts_are_added_and_never_written_again(tmp_path: Path) -> None:
    with Scores(tmp_path / "scores", ["accuracy"]) as scores:
        for trial in range(PART):
            scores.take(scored(recovered(trial, 0.9, 9.0, "none"), 1.0), "search")
        (first,) = (tmp_path / "scores").iterdir()
        before = first.stat()
        scores.take(scored(recovered(PART, 0.9, 9.0, "none"), 0.0), "search")
    parts = sorted((tmp_path / "scores").iterdir())
    assert [part.name for part in parts] == ["000000.parquet", "000001.parquet"]
    assert first.stat() == before


def test_no_text_in_the_storage_grows_with_the_examples(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    search.pipeline = Pipeline(InlineDispatcher(ScoringEvaluator()), "search")
    with Scores(tmp_path / "scores", ["accuracy"]) as scores:
        search.trimmed = lambda record: scores.take(record, "search")
        picked = chosen(search.run(12), OBJECTIVES)
    pipeline = Pipeline(InlineDispatcher(ScoringEvaluator()), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, 0, scores=scores)
    texts = [trial.user_attrs[RECORD] for trial in search.study.get_trials()]
    texts += [v for key, v in search.study.user_attrs.items() if key.startswith(CONFIRMED)]
    assert len(texts) == 12 + len(picked)
    assert max(map(len, texts)) < TEXT_OF_MYSQL / 10
    assert scores.restored(confirmations(search.study), "confirm") == confirmed
    assert all(len(r.measurements["accuracy"].samples) == 30_000 for r in confirmed.values())


def test_confirmation_of_before_there_were_scores_is_published_alike(tmp_path: Path) -> None:
    """A run that was cut off between an old version and this one has some of both kinds."""
    search = new_search(tmp_path)
    search.run(20)
    picked = chosen(search.records, OBJECTIVES)
    scores = Scores(tmp_path / "scores", ["accuracy"])
    tables = []
    for keeper in (None, scores):
        pipeline = Pipeline(InlineDispatcher(ScoringEvaluator(examples=50)), "confirm")
        some = picked if keeper else picked[:2]
        confirm(search.study, some, lambda lane=pipeline: lane, 0, scores=keeper)
        found = scores.restored(confirmations(search.study), "confirm")
        tables.append(published_table(some, found, OBJECTIVES, NAMES, ["latency_ms"]).to_pandas())
    assert len(tables[0]) == 2 < len(tables[1])
    assert tables[1]["accuracy_difference_low"].notna().all()
    both = tables[1].set_index("candidate_id").loc[tables[0]["candidate_id"]]
    columns = ["accuracy", "accuracy_difference", "accuracy_difference_low"]
    assert both[columns].to_numpy().tolist() == tables[0][columns].to_numpy().tolist()


def test_lost_scores_leave_the_difference_open(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    picked = chosen(search.run(10), OBJECTIVES)
    pipeline = Pipeline(InlineDispatcher(ScoringEvaluator(examples=50)), "confirm")
    confirmed = confirm(search.study, picked, lambda: pipeline, 0)
    lost = picked[1].candidate.id
    confirmed[lost] = scored(confirmed[lost])
    frame = published_table(picked, confirmed, OBJECTIVES, NAMES, ["latency_ms"]).to_pandas()
    missing = frame.loc[frame["accuracy_difference"].isna(), "candidate_id"]
    assert missing.tolist() == [lost]
