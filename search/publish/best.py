"""Selection: the point of a front that is best by one metric under requirements on others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.search.records import disturbance
from paretoformer.search.records.errors import NoAnswer, OtherMachineWarning, UserError
from paretoformer.search.records.facts import LATENCY, RunFacts
from paretoformer.search.records.parquet import read_front
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.report.cells import cells
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.registry import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

ELIGIBLE = ("front", "tied", "alternative", "dense")
"""Roles that may be an answer."""


@dataclass(frozen=True)
class Alternative:
    """The uncompressed model in the runtime that serves it fastest under the same requirements.

    passed_over: how many others have better numbers, but were timed beside other work.
    """

    candidate: Candidate
    latency_ms: float
    speedup: float
    passed_over: int = 0

    @property
    def name(self) -> str:
        """What differs from the dense model: `onnxruntime:int8`; or the dense model itself."""
        return ", ".join(cells(self.candidate).values()) or "torch as it is"


@dataclass(frozen=True)
class Best:
    """A chosen point: what it is, what was measured of it, and a way to have it run.

    metrics: metric -> confirmed measurement; dense: the same of the uncompressed model.
    passed_over: how many points would be better by numbers that were timed beside other work.
    """

    candidate: Candidate
    metrics: Mapping[str, Measurement]
    dense: Mapping[str, Measurement]
    trial: int
    speedup: float
    speedup_interval: tuple[float, float, float]
    alternative: Alternative | None
    run: Path
    facts: RunFacts
    passed_over: int = 0

    @property
    def disturbed(self) -> bool:
        """Whether one of its timings, or of what they are compared with, ran beside other work."""
        return any(each.disturbed for each in (*self.metrics.values(), *self.dense.values()))

    @property
    def warning(self) -> str:
        """What to know of timings that ran beside other work, in one sentence; mostly nothing."""
        if self.disturbed:
            timed = [
                each for each in (*self.metrics.values(), *self.dense.values()) if each.disturbed
            ]
            text = disturbance.sentence(max(each.foreign_cores for each in timed))
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
        """What it gains over the best that a user could do without compression, in one line."""
        if self.alternative is None:
            return ""
        count = self.alternative.passed_over
        unsure = (
            f" {count} alternative{'s' if count > 1 else ''} with better numbers "
            f"{'were' if count > 1 else 'was'} timed beside other work and not compared."
            if count
            else ""
        )
        if self.alternative.candidate == self.candidate:
            name = self.alternative.name
            return f"No compressed model is faster than the uncompressed one in {name}.{unsure}"
        factor = self.speedup / self.alternative.speedup
        return (
            f"{self.speedup:.2f}x as fast as the uncompressed torch model, and {factor:.2f}x as "
            f"fast as the best alternative that satisfies the same requirement: the uncompressed "
            f"model in {self.alternative.name}, {self.alternative.speedup:.2f}x.{unsure}"
        )

    @property
    def study(self) -> Mapping[str, Any]:
        """The resolved study file."""
        return self.facts.study

    def load_model(self) -> Any:
        """The compressed model as it was measured.

        A torch module in evaluation mode and the target's dtype; or where another runtime serves
        the point, a `Runnable`, which is called in the same way.

        Raises:
            StudyError: the study's model is not where the study says, or its weights are not those
                that were measured.
            RunError: the point's files are lost or were changed.
        """
        from paretoformer.search.publish.load import load_point  # which needs torch

        return load_point(self.candidate, self.run, self.facts)


def load_best(
    run: str | Path,
    minimize: str | None = None,
    require: Sequence[str] | None = None,
) -> Best:
    """The point of a finished run with the least `minimize` that satisfies every requirement.

    minimize: a metric, best by its own direction; default `RunFacts.timing`.
    require: as `Requirement.parse` reads them; by default those of the task's quality metrics.

    Warns once (`OtherMachineWarning`) where this machine is unlike the one that measured.

    The uncompressed model takes part: where nothing smaller satisfies, it is the answer. A point
    that was timed beside other work is one only where that is true of all; `Best.warning` says so.

    Raises:
        UserError: no finished run, an unknown metric, or a requirement that does not parse.
        NoAnswer: nothing satisfies; the message says what comes nearest.
    """
    frame, facts = read_front(run)
    metric = minimize or facts.timing
    texts = facts.requirements if require is None else require
    requirements = [Requirement.parse(text) for text in texts]
    for name in (metric, *(each.metric for each in requirements)):
        if name not in facts.metrics:
            raise UserError(
                f"unknown metric {name!r}.{did_you_mean(name, facts.metrics)} "
                f"{Path(run)} has: {', '.join(facts.metrics)}."
            )
    dense = frame[frame["role"] == "dense"].iloc[0]
    done = frame[frame["state"] == "complete"]
    eligible = done[done["role"].isin(ELIGIBLE) & done[metric].notna()]
    if eligible.empty:
        raise NoAnswer(f"no point of {Path(run)} says its {metric}.")
    short = np.array(
        [
            sum(each.shortfall(row[each.metric], dense[each.metric]) for each in requirements)
            for _, row in eligible.iterrows()
        ],
        dtype=float,
    )
    short[np.isnan(short)] = np.inf  # a runtime that cannot tell does not satisfy
    satisfying = eligible[short == 0]
    if satisfying.empty:
        nearest = eligible.iloc[int(np.argmin(short))]
        raise NoAnswer(_nearest(nearest, dense, requirements))
    costs = satisfying[metric].astype(float)
    if facts.metrics[metric].direction == "maximize":
        costs = -costs
    _warn_of_other_machine(facts)
    sure = disturbance.undisturbed(satisfying, [metric, *(each.metric for each in requirements)])
    chosen = satisfying.loc[costs[(satisfying if sure.empty else sure).index].idxmin()]
    passed_over = int((costs < costs[chosen.name]).sum())
    return _best(
        chosen, dense, _alternative(satisfying, facts.timing), Path(run), facts, passed_over
    )


def _alternative(satisfying: pd.DataFrame, timing: str) -> Alternative | None:
    """The fastest uncompressed model among these; None in a run without alternatives."""
    uncut = satisfying[satisfying["role"].isin(["alternative", "dense"])]
    if not (satisfying["role"] == "alternative").any():
        return None
    sure = disturbance.undisturbed(uncut, [timing])
    compared = uncut if sure.empty else sure
    row = compared.iloc[int(np.argmin(compared[timing].to_numpy(dtype=float)))]
    passed_over = int((uncut[timing].to_numpy(dtype=float) < row[timing]).sum())
    candidate = Candidate.from_json(row["candidate"])
    return Alternative(candidate, float(row[LATENCY]), float(row["speedup"]), passed_over)


def _warn_of_other_machine(facts: RunFacts) -> None:
    import torch

    from paretoformer.evaluators.common.target import Target, describe_machine, machine_facts

    there = facts.machine
    # This machine need not have the device; then it differs, and that is what is said.
    wanted = str(facts.study["target"]["device"])
    device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
    here = machine_facts(Target(device))
    if there["hardware"] != here["hardware"]:
        warnings.warn(
            f"the timings are those of another machine, {describe_machine(there)}; "
            f"this one is {describe_machine(here)}.",
            OtherMachineWarning,
            stacklevel=3,
        )


def _best(
    row: pd.Series,
    dense: pd.Series,
    alternative: Alternative | None,
    run: Path,
    facts: RunFacts,
    passed_over: int,
) -> Best:
    reference = _measurements(dense, facts)
    found = _measurements(row, facts)
    return Best(
        candidate=Candidate.from_json(row["candidate"]),
        metrics={name: each for name, each in found.items() if name in reference},
        dense=reference,
        trial=int(row["trial"]),
        speedup=float(row["speedup"]),
        speedup_interval=(
            float(row["speedup"]),
            float(row["speedup_low"]),
            float(row["speedup_high"]),
        ),
        alternative=alternative,
        run=run,
        facts=facts,
        passed_over=passed_over,
    )


def _measurements(row: pd.Series, facts: RunFacts) -> dict[str, Measurement]:
    """The measurements that a row of `front.parquet` holds; none where a runtime cannot tell."""
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
            samples=() if samples is None else tuple(float(each) for each in samples),
            stable=True if stable is None else bool(stable),
            conditions=disturbance.conditions_of(row, name),
            disturbed=disturbance.is_disturbed(row, [name]),
        )
    return found


def _nearest(row: pd.Series, dense: pd.Series, requirements: Sequence[Requirement]) -> str:
    missed = [
        f"{each.metric} {row[each.metric]:.4g} where {each.text} asks for "
        f"{each.operator} {each.bound(dense[each.metric]):.4g}"
        for each in requirements
        if each.shortfall(row[each.metric], dense[each.metric]) > 0
    ]
    return (
        f"no point satisfies the requirement. Nearest: trial {row['trial']}, {'; '.join(missed)}."
    )
