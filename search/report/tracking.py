"""A finished run in MLflow: a parent run, and a child run per point of its front."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from paretoformer.search.records.errors import UserError
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import read_front
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.malformed import one_line

if TYPE_CHECKING:
    import pandas as pd

TAG = "paretoformer.run"
"""Tag of our MLflow runs: the id of the run folder, so that a folder is logged once."""
POINT = "paretoformer.candidate"
FILES = ("study.toml", "front.parquet", "trials.parquet", "report.html", "front.svg")
LONGEST = 500
"""Limit for a parameter's characters. MLflow accepts 6,000, but its tables do not show them."""


class Tracker:
    """A client for an MLflow server, or for a folder or database.

    Raises:
        UserError: the extra is not installed, or nothing answers at the address.
    """

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no data leaves unasked
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise UserError("--mlflow needs: pip install 'paretoformer[mlflow]'") from None
        self._uri = uri
        try:
            self._client: Any = MlflowClient(tracking_uri=uri)
            self._client.search_experiments(max_results=1)
        except Exception as error:  # from the server, its database, or the connection
            raise UserError(f"--mlflow {uri}: {one_line(error)}.") from None

    def log(self, folder: RunFolder) -> None:
        """Log every published point: its description, and its metrics with their intervals.

        A run that was logged before is updated.

        Raises:
            UserError: the run is not finished, or the server rejects it.
        """
        frame, facts = read_front(folder.path)
        identity = str(folder.read_machine()["run"])
        try:
            self._log(folder, frame, facts, identity)
        except Exception as error:
            raise UserError(
                f"the run is finished, but --mlflow {self._uri} does not take it: "
                f"{one_line(error)}. The same command tries again."
            ) from None

    def _log(self, folder: RunFolder, frame: pd.DataFrame, facts: RunFacts, identity: str) -> None:
        name = str(facts.study["name"])
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        before = {
            run.data.tags.get(POINT, ""): run.info.run_id
            for run in self._client.search_runs(
                [experiment], f"tags.`{TAG}` = '{identity}'", max_results=10_000
            )
        }
        parent = before.get("") or self._begin(experiment, name, {TAG: identity})
        self._params(parent, _flat(facts.study), known="" in before)
        for file in FILES:
            if (folder.path / file).exists():
                self._client.log_artifact(parent, str(folder.path / file))
        for _, row in frame.iterrows():
            candidate = Candidate.from_json(row["candidate"])
            own = {TAG: identity, POINT: candidate.id, "mlflow.parentRunId": parent}
            run = before.get(candidate.id) or self._begin(experiment, f"trial {row['trial']}", own)
            self._client.set_tag(run, "role", row["role"])
            words = {"keeps": candidate.phrase, "candidate": candidate.to_json()}
            self._params(run, words, known=candidate.id in before)
            for metric, value in _metrics(row, facts):
                self._client.log_metric(run, metric, value)
            self._client.set_terminated(run)
        self._client.set_terminated(parent)

    def _begin(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(experiment, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def _params(self, run: str, params: Mapping[str, Any], *, known: bool) -> None:
        """MLflow parameters cannot change, so a known run keeps its own."""
        for key, value in {} if known else params.items():
            self._client.log_param(run, key, str(value)[:LONGEST])


def _metrics(row: pd.Series[Any], facts: RunFacts) -> Iterator[tuple[str, float]]:
    for name in (*facts.metrics, "speedup"):
        for end in ("", "_low", "_high"):
            value = row.get(f"{name}{end}")
            if value is not None and np.isfinite(value):
                yield f"{name}{end}", float(value)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"target": {"device": "cpu"}}` -> `{"target.device": "cpu"}`."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
