"""Selection: the point of a front that is best by one metric under requirements on others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretoformer.evaluators.measurement import Measurement
from paretoformer.search.errors import NoAnswer, OtherMachineWarning, UserError
from paretoformer.search.store import read_front
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.suggestions import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

DEFAULT_MINIMIZE = "latency_ms"
DEFAULT_REQUIRE = ("accuracy>=dense-0.01",)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_REQUIREMENT = re.compile(
    rf"""
    \s* (?P<metric>[A-Za-z_]\w*) \s* (?P<operator>>=|<=|>|<) \s*
    (?: (?P<number>{_NUMBER})
      | (?P<factor>{_NUMBER}) \s*\*\s* dense
      | dense (?: \s*\*\s* (?P<times>{_NUMBER}) | \s* (?P<shift>[-+] \s* (?:\d+\.?\d*|\.\d+)) )?
    ) \s*
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Requirement:
    """`metric operator factor * dense + constant`."""

    metric: str
    operator: str
    factor: float
    constant: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """`accuracy>=0.84`, `accuracy>=dense-0.01`, `latency_ms<=0.5*dense`.

        Raises:
            UserError: the text is none of these.
        """
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise UserError(
                f"cannot read the requirement {text!r}: write METRIC OP VALUE, as in "
                "accuracy>=0.84, accuracy>=dense-0.01 or latency_ms<=0.5*dense."
            )
        if match["number"] is not None:
            factor, constant = 0.0, float(match["number"])
        else:
            factor = float(match["factor"] or match["times"] or 1)
            constant = float((match["shift"] or "0").replace(" ", ""))
        return cls(match["metric"], match["operator"], factor, constant, text)

    def bound(self, dense: float) -> float:
        return self.factor * dense + self.constant

    def shortfall(self, value: float, dense: float) -> float:
        """0 where `value` satisfies; else how far it is off, as a share of the bound."""
        bound = self.bound(dense)
        # Values such as 0.846 - 0.01 fall a rounding error beside what a person means.
        slack = 1e-9 * max(1.0, abs(bound))
        gap = bound - value if self.operator.startswith(">") else value - bound
        strict = self.operator in "<>"
        if gap < -slack or (not strict and gap <= slack):
            return 0.0
        return max(gap, slack) / max(abs(bound), 1e-12)


@dataclass(frozen=True)
class Best:
    """A chosen point: what it is, what was measured of it, and a way to have it run.

    metrics: metric -> confirmed measurement; dense: the same of the uncompressed model.
    """

    candidate: Candidate
    metrics: Mapping[str, Measurement]
    dense: Mapping[str, Measurement]
    trial: int
    speedup: float
    study: Mapping[str, Any]

    def load_model(self) -> nn.Module:
        """The compressed model as it was measured: evaluation mode, the dtype of the target.

        Raises:
            StudyError: the study's model is not where the study says.
        """
        from paretoformer.evaluators.target import DTYPES
        from paretoformer.search.spec import Spec
        from paretoformer.search.subject import load_dense
        from paretoformer.spaces.persist import compress

        spec = Spec.model_validate(self.study)
        return compress(load_dense(spec).to(DTYPES[spec.target.dtype]), self.candidate)


def load_best(
    run: str | Path,
    minimize: str | None = None,
    require: Sequence[str] | None = None,
) -> Best:
    """The point of a finished run with the least `minimize` that satisfies every requirement.

    minimize: a metric, best by its own direction; default `latency_ms`.
    require: as `Requirement.parse` reads them; by default `accuracy>=dense-0.01`.

    Warns once (`OtherMachineWarning`) where this machine is unlike the one that measured.

    The uncompressed model takes part: where nothing smaller satisfies, it is the answer.

    Raises:
        UserError: no finished run, an unknown metric, or a requirement that does not parse.
        NoAnswer: nothing satisfies; the message says what comes nearest.
    """
    frame, facts = read_front(run)
    metric = minimize or DEFAULT_MINIMIZE
    texts = _default_require(facts) if require is None else require
    requirements = [Requirement.parse(text) for text in texts]
    for name in (metric, *(each.metric for each in requirements)):
        if name not in facts["metrics"]:
            raise UserError(
                f"unknown metric {name!r}.{did_you_mean(name, facts['metrics'])} "
                f"{Path(run)} has: {', '.join(facts['metrics'])}."
            )
    dense = frame[frame["role"] == "dense"].iloc[0]
    eligible = frame[frame["role"].isin(["front", "tied", "dense"])]
    short = np.array(
        [
            sum(each.shortfall(row[each.metric], dense[each.metric]) for each in requirements)
            for _, row in eligible.iterrows()
        ]
    )
    satisfying = eligible[short == 0]
    if satisfying.empty:
        nearest = eligible.iloc[int(np.argmin(short))]
        raise NoAnswer(_nearest(nearest, dense, requirements))
    costs = satisfying[metric]
    if facts["metrics"][metric]["direction"] == "maximize":
        costs = -costs
    _warn_of_other_machine(facts)
    return _best(satisfying.loc[costs.idxmin()], dense, facts)


def _warn_of_other_machine(facts: Mapping[str, Any]) -> None:
    import torch

    from paretoformer.evaluators.target import Target, describe, fingerprint

    there = facts["machine"]
    # This machine need not have the device; then it differs, and that is what is said.
    wanted = str(facts["study"]["target"]["device"])
    device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
    here = fingerprint(Target(device))
    if there["hardware"] != here["hardware"]:
        warnings.warn(
            f"the timings are those of another machine, {describe(there)}; "
            f"this one is {describe(here)}.",
            OtherMachineWarning,
            stacklevel=3,
        )


def _default_require(facts: Mapping[str, Any]) -> Sequence[str]:
    return DEFAULT_REQUIRE if "accuracy" in facts["metrics"] else ()


def _best(row: pd.Series, dense: pd.Series, facts: Mapping[str, Any]) -> Best:
    return Best(
        candidate=Candidate.from_json(row["candidate"]),
        metrics=_measurements(row, facts),
        dense=_measurements(dense, facts),
        trial=int(row["trial"]),
        speedup=float(row["speedup"]),
        study=facts["study"],
    )


def _measurements(row: pd.Series, facts: Mapping[str, Any]) -> dict[str, Measurement]:
    """The measurements that a row of `front.parquet` holds."""
    found = {}
    for name, metric in facts["metrics"].items():
        samples = row.get(f"{name}_samples")
        stable = row.get(f"{name}_stable")
        found[name] = Measurement(
            value=float(row[name]),
            low=float(row[f"{name}_low"]),
            high=float(row[f"{name}_high"]),
            unit=metric["unit"],
            samples=() if samples is None else tuple(float(each) for each in samples),
            stable=True if stable is None else bool(stable),
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
