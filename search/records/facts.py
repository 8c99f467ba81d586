"""The facts of a run: the metadata of its Parquet files, without which numbers mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.spaces.common.malformed import one_line

LATENCY = "latency_ms"
"""A metric that every run measures, for speed-ups."""
DIVERGENCE = "divergence"
"""A metric that every search measures: nats from the uncompressed model's answers."""


@dataclass(frozen=True)
class MetricFacts:
    """One metric as the run measured it.

    requirement: default requirement of `best`; empty for a cost.
    """

    unit: str
    direction: Direction
    role: Role
    requirement: str = ""


def compared_timing(units: Mapping[str, str]) -> str:
    """The timing for speed-ups, which `best` minimises by default: latency, unless the study has
    only another timing as an objective.

    units: objective -> unit.
    """
    timings = [name for name, unit in units.items() if unit == "ms"]
    return timings[0] if timings and LATENCY not in timings else LATENCY


@dataclass(frozen=True)
class RunFacts:
    """The metadata of a run's tables.

    study: the resolved study file. machine: as in `machine.json`.
    model_digest: of the dense model's weights; empty in runs that did not keep it.
    left_out: axis -> value that was not tried -> reason.
    required: the study's own requirements; empty: those of the metrics.
    remarks: remarks on the data and the model, for the user.
    lengths: tokens of the shortest timed text, of the mean, and of the longest; None: all have the
        length in the study, as in runs written before this field existed.
    """

    study: Mapping[str, Any]
    machine: Mapping[str, Any]
    objectives: tuple[str, ...]
    metrics: Mapping[str, MetricFacts]
    model_digest: str = ""
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    lengths: tuple[int, float, int] | None = None

    @property
    def timed_lengths(self) -> tuple[int, float, int]:
        """`lengths`; where there are none, the length in the study."""
        return self.lengths or (self.study["target"]["sequence_length"],) * 3

    @property
    def timing(self) -> str:
        return compared_timing({name: self.metrics[name].unit for name in self.objectives})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunFacts:
        """Raises MALFORMED if a key is missing or has the wrong type."""
        _Described.model_validate(dict(data))
        metrics = {n: {**_default_role(n, m), **m} for n, m in data["metrics"].items()}
        facts = _ADAPTER.validate_python({**data, "metrics": metrics})
        if len(facts.objectives) < 2:
            raise ValueError("it has fewer than two objectives")
        for name in (*facts.objectives, LATENCY):
            if name not in facts.metrics:
                raise ValueError(f"it says nothing of the metric {name!r}")
        return facts

    def named(self, role: str) -> list[str]:
        return [name for name, metric in self.metrics.items() if metric.role == role]

    @property
    def requirements(self) -> tuple[str, ...]:
        """The default requirements of `best`."""
        default = tuple(m.requirement for m in self.metrics.values() if m.requirement)
        return self.required or default

    @property
    def qualities(self) -> list[str]:
        return self.named("quality")

    @property
    def costs(self) -> list[str]:
        return self.named("cost")


_ADAPTER = TypeAdapter(RunFacts)


def _default_role(name: str, metric: Mapping[str, Any]) -> dict[str, str]:
    """Runs written before roles existed had one quality, which was maximised: accuracy."""
    if metric.get("direction") == "maximize":
        return {"role": "quality", "requirement": f"{name}>=dense-0.01"}
    return {"role": "cost"}


class _Part(BaseModel):
    """Only the keys that are read; older and newer versions may have others."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Hardware(_Part):
    cpu: str
    cores: int
    memory_gb: float
    accelerator: str


class Machine(_Part):
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
    sequence_length: int | Literal["data"]
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


class _Described(_Part):
    study: _Study
    machine: Machine


def fault(error: BaseException) -> str:
    """The fault in one line: `study.name: field required`."""
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    but = "" if first["type"] == "missing" else f", but got {first['input']!r:.60}"
    return f"{where}: {first['msg'].lower()}{but}"
