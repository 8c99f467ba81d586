"""PostgreSQL as the storage of a study: a real server, and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import TrialState

import paretoformer as pf
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.search.loop import stored_records
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.study.optuna_study import check_storage, open_study
from tests import postgres
from tests.test_loop import OBJECTIVES, search_of, small_space
from tests.test_storage import as_stored
from tests.tiny import write_study

reason = postgres.unavailable_reason()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(reason), reason=reason),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres.server() as found:
        yield found


def search_in(url: str, name: str, trials: int) -> list[str]:
    study = open_study(name, url, OBJECTIVES, "nsga2", 0)
    records = search_of(study, small_space(), FormulaEvaluator()).run(trials)
    return [record.candidate.id for record in records]


def test_search_goes_on_where_it_was(url: str) -> None:
    first = search_in(url, "resumed", 15)
    both = search_in(url, "resumed", 30)
    assert both[:15] == first
    assert len(set(both)) == len(both) == 30


def test_studies_of_one_server_keep_apart(url: str) -> None:
    """Ids of trials are the server's; numbers are each study's own."""
    one, other = (open_study(name, url, OBJECTIVES, "nsga2", 0) for name in ("one", "other"))
    searches = [search_of(study, small_space(), FormulaEvaluator()) for study in (one, other)]
    for trials in (5, 10, 20):
        for search in searches:
            search.run(trials)
    for study in (one, other):
        trials = as_stored(url, study.study_name)
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert len(stored_records(study)) == 20


KILLED = """
import sys
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.search.study.optuna_study import open_study
from tests.test_loop import OBJECTIVES, search_of, small_space

study = open_study("killed", sys.argv[1], OBJECTIVES, "nsga2", 0)
search_of(study, small_space(), FormulaEvaluator(0.02)).run(60)
"""


def test_killed_process_loses_nothing_and_its_trial_keeps_its_number(url: str) -> None:
    open_study("killed", url, OBJECTIVES, "nsga2", 0)  # the tables exist before they are read
    with subprocess.Popen([sys.executable, "-c", KILLED, url]) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and finished(url) < 10:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    trials = as_stored(url, "killed")
    running = {t.number: t.params for t in trials if t.state is TrialState.RUNNING}
    study = open_study("killed", url, OBJECTIVES, "nsga2", 0)
    before = {record.candidate.id: record.trial for record in stored_records(study)}
    assert 10 <= len(before) < 60
    records = search_of(study, small_space(), FormulaEvaluator()).run(60)
    after = {record.candidate.id: record.trial for record in records}
    assert before.items() <= after.items()
    assert len(after) == len(records) == 60
    later = {trial.number: trial.params for trial in study.get_trials()}
    assert running.keys() <= later.keys()  # some were killed before their parameters were stored
    assert all(params.items() <= later[number].items() for number, params in running.items())


def finished(url: str) -> int:
    """Finished trials of the study that is killed."""
    query = (
        "SELECT count(*) FROM trials JOIN studies USING (study_id) "
        "WHERE study_name = 'killed' AND state = 'COMPLETE'"
    )
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        count = connection.execute(sqlalchemy.text(query)).scalar_one()
    engine.dispose()
    return int(count)


@pytest.mark.nightly
@pytest.mark.usefixtures("inline")
def test_whole_study_runs_on_it_and_is_published(url: str, tmp_path: Path) -> None:
    extra = f'[space]\nruntime = ["torch"]\n[search]\nstorage = "{url}"\ntable = false\n'
    study = write_study(tmp_path, trials=4, extra=extra)
    run = pf.search(study, out=tmp_path / "run", quiet=True)
    assert not (run / "optuna.db").exists()
    assert len(as_stored(url, "tiny")) >= len(read_table(run / "trials.parquet")[0]) >= 4
    assert (read_front(run)[0]["role"] == "dense").sum() == 1
    with pytest.raises(StudyError, match="holds a study 'tiny' already"):
        check_storage(url, "tiny")


def test_server_that_does_not_answer_is_named(url: str) -> None:
    with pytest.raises(StudyError, match=r"cannot open the storage 'postgresql://.*refused"):
        check_storage("postgresql://owner@127.0.0.1:1/postgres", "tiny")
