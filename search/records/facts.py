"""The facts of a run: what its Parquet files must say for their numbers to mean something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, get_args

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.search.records.errors import RunError
from paretoformer.spaces.common.malformed import MALFORMED

T = TypeVar("T")


@dataclass(frozen=True)
class MetricFacts:
    """One metric as the run measured it.

    requirement: what `best` asks of it by default; empty for a cost.
    """

    unit: str
    direction: Direction
    role: Role
    requirement: str = ""

    @classmethod
    def read(cls, name: str, data: Mapping[str, Any]) -> MetricFacts:
        """A run of before there were roles had one quality, which was maximised: accuracy.

        Raises MALFORMED when it is not what `RunFacts.to_dict` wrote.
        """
        quality = data["direction"] == "maximize"
        return cls(
            unit=_text(data["unit"]),
            direction=_known(data["direction"], get_args(Direction)),
            role=_known(data.get("role", "quality" if quality else "cost"), get_args(Role)),
            requirement=_text(data.get("requirement", f"{name}>=dense-0.01" if quality else "")),
        )


LATENCY = "latency_ms"


def compared_timing(units: Mapping[str, str]) -> str:
    """The timing that speed-ups are ratios of, and `best` minimises: latency, unless the study has
    another one as an objective and not latency.

    units: of its objectives, by name.
    """
    timings = [name for name, unit in units.items() if unit == "ms"]
    return timings[0] if timings and LATENCY not in timings else LATENCY


@dataclass(frozen=True)
class RunFacts:
    """What travels with every table of a run.

    study: the resolved study file. machine: as in `machine.json`.
    model_digest: of the dense model's weights; empty in a run of before it was kept.
    left_out: axis -> what the study did not try -> why.
    required: what the study asks of an answer; empty where the metrics say it.
    remarks: what the user should know about the data and the model.
    """

    study: Mapping[str, Any]
    machine: Mapping[str, Any]
    objectives: tuple[str, ...]
    metrics: Mapping[str, MetricFacts]
    model_digest: str = ""
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def timing(self) -> str:
        """As `compared_timing` has it."""
        return compared_timing({name: self.metrics[name].unit for name in self.objectives})

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunFacts:
        """Raises RunError when something is missing, or of another type."""
        try:
            return cls(
                study=_mapping(data["study"]),
                machine=_mapping(data["machine"]),
                objectives=_texts(data["objectives"]),
                metrics={n: MetricFacts.read(n, each) for n, each in data["metrics"].items()},
                model_digest=_text(data.get("model_digest", "")),
                left_out={
                    axis: {value: _text(why) for value, why in reasons.items()}
                    for axis, reasons in data.get("left_out", {}).items()
                },
                required=_texts(data.get("required", [])),
                remarks=_texts(data.get("remarks", [])),
            )
        except MALFORMED as error:
            raise RunError(f"the metadata of the run is damaged: {error!r}.") from None

    def named(self, role: str) -> list[str]:
        """The metrics of one role, in the order of the files."""
        return [name for name, metric in self.metrics.items() if metric.role == role]

    @property
    def requirements(self) -> tuple[str, ...]:
        """What `best` asks for by default."""
        default = tuple(m.requirement for m in self.metrics.values() if m.requirement)
        return self.required or default

    @property
    def qualities(self) -> list[str]:
        return self.named("quality")

    @property
    def costs(self) -> list[str]:
        return self.named("cost")


def _mapping(value: Any) -> Mapping[str, Any]:
    return _typed(value, dict)


def _text(value: Any) -> str:
    return _typed(value, str)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _typed(value, list)))


def _typed(value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.60} stands where a {kind.__name__} belongs")
    return value


def _known(value: Any, words: tuple[Any, ...]) -> Any:
    if value not in words:
        raise ValueError(f"{value!r:.60} is none of {', '.join(words)}")
    return value
