"""`search --mlflow`: the front of a run in MLflow."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paretoformer.search.records.errors import UserError
from paretoformer.search.records.parquet import read_front
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.tracking import POINT, TAG, Tracker
from tests.conftest import Run


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps artifacts
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def folder(example: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(example, tmp_path / "run"))


def logged(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")  # MLflow's own
def test_every_point_is_logged_once_with_what_was_measured(uri: str, folder: RunFolder) -> None:
    Tracker(uri).log(folder)
    Tracker(uri).log(folder)
    frame, facts = read_front(folder.path)
    runs = logged(uri)
    assert {run.data.tags[TAG] for run in runs} == {folder.read_machine()["run"]}
    points = {run.data.tags[POINT]: run for run in runs if POINT in run.data.tags}
    assert sorted(points) == sorted(frame["candidate_id"])
    assert len(runs) == len(points) + 1
    (parent,) = (run for run in runs if POINT not in run.data.tags)
    assert parent.data.params["target.device"] == facts.study["target"]["device"]
    for _, row in frame.iterrows():
        run = points[row["candidate_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["role"] == row["role"]
        assert json.loads(run.data.params["candidate"]) == json.loads(row["candidate"])
        for name in ("latency_ms", "latency_ms_low", "speedup", "accuracy_high"):
            assert run.data.metrics[name] == pytest.approx(row[name])


def test_address_without_a_server_is_refused_before_anything_is_measured(
    run: Run, tmp_path: Path
) -> None:
    status, _, errors = run(
        "search", "reviews", "--out", tmp_path / "run", "--mlflow", "http://127.0.0.1:9"
    )
    assert status == 2
    assert errors.startswith("paretoformer: --mlflow http://127.0.0.1:9: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_missing_extra_is_named(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "mlflow":
            raise ImportError(name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"paretoformer\[mlflow\]"):
        Tracker(uri)
