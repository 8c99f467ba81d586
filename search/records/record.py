"""A trial's record: stored in Optuna's storage and as a row in Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from paretoformer.evaluators.common.measurement import Measurement, Measurements
from paretoformer.evaluators.outcome import Outcome, Phase, Result, Span
from paretoformer.search.records.errors import RunError
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.malformed import MALFORMED, json_object, one_line

RECORD = "record"
"""User attribute of an Optuna trial: its complete `TrialRecord`."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrialRecord:
    """One measured candidate.

    predicted: metric -> value predicted before the measurement.
    """

    trial: int
    candidate: Candidate
    result: Result
    predicted: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.result.outcome is Outcome.OK

    @property
    def disturbed(self) -> bool:
        """Whether one of its timings had to be taken while other work ran."""
        return any(measured.disturbed for measured in self.measurements.values())

    @property
    def counts(self) -> bool:
        """Whether it counts as one of the wanted trials.

        Candidates that their runtime cannot run do not count, and neither do distilled ones.
        """
        return self.result.outcome is not Outcome.UNSUITABLE and not self.candidate.seconds

    @property
    def measurements(self) -> Measurements:
        return self.result.measurements

    def values(self, names: Sequence[str]) -> list[float]:
        """The values of these metrics; NaN if not measured."""
        found = (self.measurements.get(name) for name in names)
        return [float("nan") if measured is None else measured.value for measured in found]

    def to_json(self) -> str:
        return json.dumps(
            {
                "version": SCHEMA_VERSION,
                "trial": self.trial,
                "candidate": self.candidate.to_json(),
                "outcome": self.result.outcome.label,
                "message": self.result.message,
                "spans": [_span(span) for span in self.result.spans],
                "measurements": {k: m.to_dict() for k, m in self.measurements.items()},
                **({"predicted": dict(self.predicted)} if self.predicted else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> TrialRecord:
        """Raises RunError if the text is not a record, or is from a newer version."""
        try:
            return cls._read(json_object(text))
        except MALFORMED as error:
            raise RunError(f"a record in the storage is damaged: {one_line(error)}.") from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> TrialRecord:
        if data["version"] != SCHEMA_VERSION:
            raise RunError(
                f"this record has format version {data['version']}, and this paretoformer reads "
                f"version {SCHEMA_VERSION}. Install the version that wrote it."
            )
        result = Result(
            outcome=Outcome[data["outcome"].upper()],
            measurements={k: Measurement.from_dict(m) for k, m in data["measurements"].items()},
            message=data["message"],
            spans=tuple(_read_span(span) for span in data["spans"]),
        )
        candidate = Candidate.from_json(data["candidate"])
        return cls(data["trial"], candidate, result, data.get("predicted", {}))


Records = Mapping[str, TrialRecord]
"""Candidate id -> its record."""


def _span(span: Span) -> dict[str, Any]:
    """Version 1 calls the phase `half`."""
    facts = asdict(span)
    return {"half": facts.pop("phase").value, **facts}


def _read_span(data: dict[str, Any]) -> Span:
    return Span(Phase(data["half"]), **{key: value for key, value in data.items() if key != "half"})


SPAN = {
    "host": pa.string(),
    "process": pa.int64(),
    "started": pa.float64(),
    "ended": pa.float64(),
}
"""Columns about when and where a phase of a trial ran."""


def span_column(phase: Phase, key: str) -> str:
    """`timing_started`."""
    return f"{phase.value}_{key}"


ENDS = ("", "_low", "_high")
"""Suffixes of the columns of a number and its interval."""
SAMPLED = {
    "_samples": pa.list_(pa.float64()),
    "_stable": pa.bool_(),
    "_disturbed": pa.bool_(),
    "_conditions": pa.string(),
}
"""Suffixes of the other columns of a timing."""
DIFFERENCE = tuple(f"_difference{end}" for end in ENDS)
"""Suffixes of the columns of a score's difference from the dense model's."""


def schema(
    metrics: Iterable[str], sampled: Iterable[str], predicted: Iterable[str] = ()
) -> pa.Schema:
    """The columns of `trials.parquet`.

    metrics: all recorded metrics; sampled: those that keep their samples; predicted: those that are
    predicted before they are measured.
    """
    text, number = pa.string(), pa.float64()
    columns: dict[str, pa.DataType] = {"trial": pa.int64(), "candidate_id": text, "candidate": text}
    columns |= {"state": text, "outcome": text, "message": text}
    columns |= {span_column(phase, key): kind for phase in Phase for key, kind in SPAN.items()}
    columns |= {f"{name}{end}": number for name in metrics for end in ENDS}
    columns |= {f"predicted_{name}": number for name in predicted}
    columns |= {f"{name}{end}": kind for end, kind in SAMPLED.items() for name in sampled}
    return pa.schema(list(columns.items()))


def front_schema(
    metrics: Sequence[str], sampled: Iterable[str], paired: Iterable[str]
) -> pa.Schema:
    """The columns of `front.parquet`.

    paired: scores with a known difference from the dense model's.
    """
    names = [f"search_{name}" for name in metrics] + [f"speedup{end}" for end in ENDS]
    names += [f"{name}{end}" for name in paired for end in DIFFERENCE]
    more = [pa.field(name, pa.float64()) for name in names]
    return pa.schema([*schema(metrics, sampled), *more, pa.field("role", pa.string())])


def is_optional(column: str) -> bool:
    """Whether a file may lack the column, as files of older versions do."""
    return column.endswith((*SAMPLED, *DIFFERENCE))


def row(
    record: TrialRecord,
    metrics: Iterable[str],
    sampled: Iterable[str],
    predicted: Iterable[str] = (),
) -> dict[str, Any]:
    """A record as one row of `schema`; null if not measured."""
    result = record.result
    cells: dict[str, Any] = {
        "trial": record.trial,
        "candidate_id": record.candidate.id,
        "candidate": record.candidate.to_json(),
        "state": "complete" if record.ok else "failed",
        "outcome": result.outcome.label,
        "message": result.message,
    }
    for phase in Phase:
        span = next((span for span in result.spans if span.phase is phase), None)
        cells |= {span_column(phase, key): span and getattr(span, key) for key in SPAN}
    for name in metrics:
        measured = record.measurements.get(name)
        cells[name] = measured and measured.value
        cells[f"{name}_low"] = measured and measured.low
        cells[f"{name}_high"] = measured and measured.high
    for name in predicted:
        cells[f"predicted_{name}"] = record.predicted.get(name)
    for name in sampled:
        measured = record.measurements.get(name)
        cells[f"{name}_samples"] = measured and list(measured.samples)
        cells[f"{name}_stable"] = measured and measured.stable
        cells[f"{name}_disturbed"] = measured and measured.disturbed
        cells[f"{name}_conditions"] = measured and json.dumps(dict(measured.conditions))
    return cells
