"""Checks of a run's files, made once when they are read, so that all later code can rely on them.

A command on a damaged run ends with the file's name and the fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from paretoformer.evaluators.outcome import Phase
from paretoformer.search.records.facts import LATENCY, RunFacts
from paretoformer.search.records.record import SPAN, front_schema, is_optional, schema, span_column
from paretoformer.spaces.candidate import Candidate

if TYPE_CHECKING:
    import pandas as pd

ROLES = {"dense", "front", "tied", "dominated", "alternative"}
STATES = {"complete", "failed"}
INDICATORS = (LATENCY, "flops")
"""Metrics that the evidence compares."""


_CONDITIONS = TypeAdapter(dict[str, float])


def check_columns(table: pa.Table, facts: RunFacts, *, published: bool) -> None:
    """Raises ValueError if columns are missing or have another type than in the schema.

    published: of `front.parquet`, else of `trials.parquet`.
    """
    names = list(facts.metrics)
    recorded = list(dict.fromkeys((*names, *INDICATORS)))
    wanted = front_schema(names, names, names) if published else schema(recorded, names)
    there = table.schema
    optional = set(filter(is_optional, wanted.names))
    for phase in Phase:
        spans = {span_column(phase, key) for key in SPAN}
        if spans.isdisjoint(there.names):  # the run is older than this phase
            optional |= spans
    for column in wanted:
        if column.name in there.names:
            found = there.field(column.name).type
            if _class(found) != _class(column.type):
                raise ValueError(f"its column {column.name!r} holds {found}")
        elif column.name not in optional:
            raise ValueError(f"it has no column {column.name!r}")


def _class(kind: pa.DataType) -> str:
    """A type without its width: other programs write wider texts and integers."""
    if pa.types.is_list(kind):
        return f"list of {_class(kind.value_type)}"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return str(kind).removeprefix("large_")


def check_rows(frame: pd.DataFrame, facts: RunFacts, *, published: bool) -> None:
    """Raises ValueError if a row does not name its candidate and its outcome."""
    needed = ("trial", "candidate_id", "candidate", "state", *(("role",) if published else ()))
    for name in needed:
        if frame[name].isna().any():
            raise ValueError(f"its column {name!r} has empty cells")
    _one_of(frame, "state", STATES)
    candidates = list(map(Candidate.from_json, frame["candidate"]))
    for candidate, identity in zip(candidates, frame["candidate_id"], strict=True):
        if candidate.id != identity:
            raise ValueError(f"the candidate {identity!r} is another one, {candidate.id}")
    if len({candidate.shape for candidate in candidates}) > 1:
        raise ValueError("its candidates are of different models")
    done = frame[frame["state"] == "complete"]
    if not np.isfinite(done[list(facts.objectives)].to_numpy(dtype=float)).all():
        raise ValueError("a complete row lacks an objective")
    _check_spans(frame)
    for name in frame.columns.intersection([f"{name}_conditions" for name in facts.metrics]):
        for text in frame[name].dropna():
            _CONDITIONS.validate_json(text)
    if published:
        _one_of(frame, "role", ROLES)
        _check_dense(frame, candidates, facts)
    elif done.empty:
        raise ValueError("it holds no trial that was measured")


def _check_spans(frame: pd.DataFrame) -> None:
    for phase in Phase:
        names = [span_column(phase, key) for key in ("started", "ended")]
        times = frame[[name for name in names if name in frame]].dropna().to_numpy(dtype=float)
        if not np.isfinite(times).all():
            raise ValueError(f"its columns {' and '.join(map(repr, names))} hold what is no time")


def _one_of(frame: pd.DataFrame, column: str, known: set[str]) -> None:
    if others := set(frame[column]) - known:
        raise ValueError(f"its column {column!r} holds {min(others)!r}")


def _check_dense(frame: pd.DataFrame, candidates: Sequence[Candidate], facts: RunFacts) -> None:
    dense = (frame["role"] == "dense").to_list()
    if sum(dense) != 1 or not candidates[dense.index(True)].is_dense:
        raise ValueError("exactly one row must be the uncompressed model")
    row = frame.iloc[dense.index(True)]
    if row["state"] != "complete" or row[[*facts.objectives, LATENCY]].isna().any():
        raise ValueError("the uncompressed model was not measured")
