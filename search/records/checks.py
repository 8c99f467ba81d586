"""What the files of a run must hold, so that everything which reads them can rely on it.

Files are checked once, where they are read: a command on a damaged run ends with the name of the
file and of what is wrong in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from paretoformer.evaluators.outcome import Phase
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.record import span_column
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.malformed import json_object

if TYPE_CHECKING:
    import pandas as pd

ROLES = {"dense", "front", "tied", "dominated", "alternative"}
STATES = {"complete", "failed"}
ENDS = ("", "_low", "_high")
LATENCY = "latency_ms"
"""Metric that every run measures: speed-ups are its ratios."""
INDICATORS = (LATENCY, "flops")
"""Metrics that the evidence compares."""


class _Part(BaseModel):
    """Keys that are read; others, of older and newer versions, may stand there too."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Hardware(_Part):
    cpu: str
    cores: int
    memory_gb: float
    accelerator: str


class _Machine(_Part):
    hardware: _Hardware
    host: str
    system: str
    versions: dict[str, str]
    threads: int


class _Model(_Part):
    path: str
    task: str
    trust_remote_code: bool


class _Data(_Part):
    search_examples: int
    confirm_examples: int


class _Target(_Part):
    device: str
    batch_size: int
    sequence_length: int
    dtype: str
    grid_intensity: float = 0


class _Sampling(_Part):
    sampler: str


class _Timing(_Part):
    width: float
    search_seconds: float
    confirm_seconds: float


class _Study(_Part):
    name: str
    seed: int
    model: _Model
    data: _Data
    target: _Target
    space: dict[str, str | list[str]]
    search: _Sampling
    timing: _Timing


class _Conditions(_Part):
    foreign_cores: float = 0.0


def check_machine(machine: Any) -> None:
    """Raises ValueError when a machine is not described as `machine.json` does."""
    _check(_Machine, machine, "machine")


def check_facts(facts: RunFacts) -> None:
    """Raises ValueError when the facts of a published table lack what is read of them."""
    _check(_Study, dict(facts.study), "study")
    check_machine(dict(facts.machine))
    if len(facts.objectives) < 2:
        raise ValueError("it has fewer than two objectives")
    for name in (*facts.objectives, LATENCY):
        if name not in facts.metrics:
            raise ValueError(f"it says nothing of the metric {name!r}")


def _check(model: type[BaseModel], data: Any, what: str) -> None:
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (what, *first["loc"])))
        raise ValueError(f"{where}: {first['msg'].lower()}") from None


def check_columns(table: pa.Table, facts: RunFacts, *, published: bool) -> None:
    """Raises ValueError when columns are missing, or have another type than `record.schema` says.

    published: of `front.parquet`, else of `trials.parquet`.
    """
    names = table.schema.names
    wanted = dict.fromkeys(("candidate_id", "candidate", "state"), _is_text)
    wanted |= {"trial": pa.types.is_integer}
    metrics = dict.fromkeys((*facts.metrics, *(() if published else INDICATORS)))
    wanted |= {f"{name}{end}": _is_number for name in metrics for end in ENDS}
    if published:
        wanted |= {f"search_{name}": _is_number for name in metrics}
        wanted |= {f"speedup{end}": _is_number for end in ENDS} | {"role": _is_text}
    else:
        wanted |= {"outcome": _is_text, "message": _is_text}
    optional = {f"{name}_samples": _is_list for name in facts.metrics}
    optional |= {f"{name}_stable": pa.types.is_boolean for name in facts.metrics}
    optional |= {f"{name}_disturbed": pa.types.is_boolean for name in facts.metrics}
    optional |= {f"{name}_conditions": _is_text for name in facts.metrics}
    optional |= {f"{name}_difference{end}": _is_number for name in facts.metrics for end in ENDS}
    wanted |= {name: kind for name, kind in optional.items() if name in names}
    for phase in Phase:
        spans = {span_column(phase, key): kind for key, kind in SPAN.items()}
        if not spans.keys().isdisjoint(names):  # there are runs of before there was this phase
            wanted |= spans
    for name, is_right in wanted.items():
        if name not in names:
            raise ValueError(f"it has no column {name!r}")
        if not is_right(table.schema.field(name).type):
            raise ValueError(f"its column {name!r} holds {table.schema.field(name).type}")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and _is_number(kind.value_type))


SPAN = {"host": _is_text, "process": _is_number, "started": _is_number, "ended": _is_number}
"""What is kept of when and where a phase of a trial ran."""


def check_rows(frame: pd.DataFrame, facts: RunFacts, *, published: bool) -> None:
    """Raises ValueError when a row does not say which candidate it is and what became of it."""
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
            _check(_Conditions, json_object(text), name)
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
