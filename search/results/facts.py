"""The facts of a run: what its Parquet files must say for their numbers to mean something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from paretoformer.evaluators.directions import Direction, Role
from paretoformer.search.errors import RunError


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
        """A run of before there were roles had one quality, which was maximised: accuracy."""
        quality = data["direction"] == "maximize"
        return cls(
            unit=data["unit"],
            direction=data["direction"],
            role=data.get("role", "quality" if quality else "cost"),
            requirement=data.get("requirement", f"{name}>=dense-0.01" if quality else ""),
        )


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

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunFacts:
        """Raises RunError when something is missing."""
        try:
            return cls(
                study=data["study"],
                machine=data["machine"],
                objectives=tuple(data["objectives"]),
                metrics={n: MetricFacts.read(n, each) for n, each in data["metrics"].items()},
                model_digest=data.get("model_digest", ""),
                left_out=data.get("left_out", {}),
                required=tuple(data.get("required", ())),
                remarks=tuple(data.get("remarks", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
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
