"""The answer of a finished run: the best point of its front, and how to run it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.search.records import disturbance
from paretoformer.search.records.errors import OtherMachineWarning
from paretoformer.search.records.facts import LATENCY, RunFacts
from paretoformer.search.records.parquet import read_front
from paretoformer.search.records.selection import Selected, select
from paretoformer.search.report.cells import cells
from paretoformer.spaces.candidate import Candidate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Alternative:
    """The uncompressed model in its fastest runtime under the same requirements.

    passed_over: alternatives with better numbers that were timed while other work ran.
    """

    candidate: Candidate
    latency_ms: float
    speedup: float
    passed_over: int = 0

    @classmethod
    def of(cls, found: Selected) -> Alternative:
        candidate = Candidate.from_json(found.row["candidate"])
        latency, gain = (float(found.row[name]) for name in (LATENCY, "speedup"))
        return cls(candidate, latency, gain, found.passed_over)

    @property
    def name(self) -> str:
        """The differences from the dense model, such as `onnxruntime:int8`."""
        return ", ".join(cells(self.candidate).values()) or "torch as it is"

    @property
    def note(self) -> str:
        """A sentence about passed-over alternatives, after a blank; usually empty."""
        if not self.passed_over:
            return ""
        were = "alternative with better numbers was"
        if self.passed_over > 1:
            were = "alternatives with better numbers were"
        return f" {self.passed_over} {were} timed beside other work and not compared."


@dataclass(frozen=True)
class Best:
    """A chosen point with its measurements, and how to run it.

    metrics: metric -> confirmed measurement; dense: the same for the uncompressed model.
    speedup_interval: the speed-up, and the ends of its 95% interval.
    passed_over: points with better numbers that were timed while other work ran.
    """

    candidate: Candidate
    metrics: Mapping[str, Measurement]
    dense: Mapping[str, Measurement]
    trial: int
    speedup_interval: tuple[float, float, float]
    alternative: Alternative | None
    run: Path
    facts: RunFacts
    passed_over: int = 0

    @property
    def speedup(self) -> float:
        return self.speedup_interval[0]

    @property
    def _disturbed(self) -> list[Measurement]:
        return [m for m in (*self.metrics.values(), *self.dense.values()) if m.disturbed]

    @property
    def disturbed(self) -> bool:
        """Whether other work ran during one of its timings or the dense model's."""
        return bool(self._disturbed)

    @property
    def warning(self) -> str:
        """A sentence about timings during which other work ran; usually empty."""
        if self.disturbed:
            text = disturbance.sentence(max(m.foreign_cores for m in self._disturbed))
            return f"{text[0].upper()}{text[1:]}."
        if not self.passed_over:
            return ""
        points = "point" if self.passed_over == 1 else "points"
        return (
            f"Left out: {self.passed_over} {points} with better numbers that were timed beside "
            "other work; run the same command again to time them anew."
        )

    @property
    def speedup_text(self) -> str:
        """`3.71x (3.60 to 3.80)`."""
        value, low, high = self.speedup_interval
        return f"{value:.2f}x ({low:.2f} to {high:.2f})"

    @property
    def gain(self) -> str:
        """The gain over the best uncompressed alternative, in one line."""
        other = self.alternative
        if other is None:
            return ""
        if other.candidate == self.candidate:
            return (
                f"No compressed model is faster than the uncompressed one in {other.name}."
                f"{other.note}"
            )
        return (
            f"{self.speedup:.2f}x as fast as the uncompressed torch model, and "
            f"{self.speedup / other.speedup:.2f}x as fast as the best alternative that satisfies "
            f"the same requirement: the uncompressed model in {other.name}, "
            f"{other.speedup:.2f}x.{other.note}"
        )

    @property
    def study(self) -> Mapping[str, Any]:
        """The resolved study file."""
        return self.facts.study

    def load_model(self) -> Any:
        """The compressed model as it was measured, in evaluation mode and the target's dtype.

        A torch module; if another runtime serves the point, a `Runnable`, called in the same way.

        Raises:
            StudyError: the study's model is missing, or its weights are not the measured ones.
            RunError: the point's files are lost or have changed.
        """
        from paretoformer.search.publish.load import load_point  # needs torch

        return load_point(self.candidate, self.run, self.facts)


def load_best(
    run: str | Path,
    minimize: str | None = None,
    require: Sequence[str] | None = None,
) -> Best:
    """The point of a finished run that is best in `minimize` and satisfies every requirement.

    minimize: a metric, best by its own direction; default: `RunFacts.timing`.
    require: for `Requirement.parse`; default: those of the task's quality metrics.

    Warns once (`OtherMachineWarning`) if this machine differs from the one that measured.

    The uncompressed model takes part: it is the answer if nothing smaller satisfies. A point that
    was timed while other work ran is the answer only if all were; `Best.warning` says so.

    Raises:
        UserError: no finished run, an unknown metric, or a requirement that does not parse.
        NoAnswer: nothing satisfies; the message names the nearest point.
    """
    frame, facts = read_front(run)
    found = select(frame, facts, minimize, require)
    dense = frame[frame["role"] == "dense"].iloc[0]
    _warn_of_other_machine(facts)
    row, other = found.answer.row, found.alternative
    reference = _measurements(dense, facts)
    return Best(
        candidate=Candidate.from_json(row["candidate"]),
        metrics={name: m for name, m in _measurements(row, facts).items() if name in reference},
        dense=reference,
        trial=int(row["trial"]),
        speedup_interval=(
            float(row["speedup"]),
            float(row["speedup_low"]),
            float(row["speedup_high"]),
        ),
        alternative=None if other is None else Alternative.of(other),
        run=Path(run),
        facts=facts,
        passed_over=found.answer.passed_over,
    )


def _warn_of_other_machine(facts: RunFacts) -> None:
    import torch

    from paretoformer.evaluators.common.target import (
        Target,
        describe_machine,
        differences,
        machine_facts,
    )

    there = facts.machine
    # If this machine lacks the device, it differs anyway, and the message says so.
    wanted = str(facts.study["target"]["device"])
    device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
    here = machine_facts(Target(device))
    if differences(there["hardware"], here["hardware"]):
        warnings.warn(
            f"the timings are those of another machine, {describe_machine(there)}; "
            f"this one is {describe_machine(here)}.",
            OtherMachineWarning,
            stacklevel=3,
        )


def _measurements(row: pd.Series, facts: RunFacts) -> dict[str, Measurement]:
    """The measurements in a row of `front.parquet`, without those that its runtime cannot make."""
    import pandas as pd

    found = {}
    for name, metric in facts.metrics.items():
        if pd.isna(row[name]):
            continue
        samples = row.get(f"{name}_samples")
        stable = row.get(f"{name}_stable")
        found[name] = Measurement(
            value=float(row[name]),
            low=float(row[f"{name}_low"]),
            high=float(row[f"{name}_high"]),
            unit=metric.unit,
            samples=() if samples is None else tuple(map(float, samples)),
            stable=True if stable is None else bool(stable),
            conditions=disturbance.conditions_of(row, name),
            disturbed=disturbance.is_disturbed(row, [name]),
        )
    return found
