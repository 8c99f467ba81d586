"""The plan of a study: what was found out about its model, kept with the run in `evidence.json`.

A resumed study goes on with the plan that it began with, even where a later version knows more
axes, mechanisms or runtimes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paretoformer.search.planning.knapsack import KnapsackProblem
from paretoformer.search.study.spec import Spec
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Evidence, Shape, Stage
from paretoformer.spaces.axes.block_options import Block
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import write_atomically
from paretoformer.spaces.common.malformed import digest_of, json_object
from paretoformer.spaces.space import Space

VERSION_1 = {"attention": "attention", "importance": "importance", "forecast": "forecast"}
"""User attributes of the study in which runs of version 1 kept what is now in `evidence.json`."""


@dataclass(frozen=True)
class Plan:
    """The candidates to try first, and the evidence for them.

    forecasts: candidates that should trade well, the slowest first. kinds: the uncompressed model
    with another kind of something, such as a mechanism. problem: predicts candidates; None without
    a block table. notes: what the user should know, one sentence each; not kept.
    """

    evidence: Evidence
    forecasts: tuple[Candidate, ...] = ()
    kinds: tuple[Candidate, ...] = ()
    problem: KnapsackProblem | None = None
    notes: tuple[str, ...] = ()

    def space(self, spec: Spec) -> Space:
        space = study_space(spec, self.evidence, solved=self.problem is not None)
        return replace(space, forecasts=self.forecasts, kinds=self.kinds)


def study_space(spec: Spec, evidence: Evidence, *, solved: bool) -> Space:
    """solved: whether candidates come from a knapsack problem, which the domains must hold."""
    settings = {axis.name: spec.setting(axis.name) for axis in axes()}
    if solved:
        settings = {axis.name: axis.solved_setting(settings[axis.name]) for axis in axes()}
    domains = {axis.name: axis.domain(settings[axis.name], evidence) for axis in axes()}
    return Space(evidence.shape, domains)


def blocks_of_axes(evidence: Evidence) -> dict[str, Block]:
    """The blocks of a layer that a study may change, by the axis that speaks for each."""
    found = {axis.name: axis.block(evidence) for axis in axes()}
    return {name: block for name, block in found.items() if block is not None}


def write_plan(path: Path, plan: Plan) -> None:
    kept = {
        "facts": plan.evidence.facts,
        "forecasts": [candidate.to_json() for candidate in plan.forecasts],
        "kinds": [candidate.to_json() for candidate in plan.kinds],
        "programme": None if plan.problem is None else plan.problem.to_dict(),
    }
    # As it is read again: JSON knows no tuples.
    digest = digest_of(json.loads(json.dumps(kept)))
    write_atomically(path, json.dumps({**kept, "digest": digest}) + "\n")


def read_plan(path: Path, shape: Shape) -> Plan:
    """Raises OSError or MALFORMED when it is not what `write_plan` wrote."""
    kept = json_object(path.read_bytes())
    digest = kept.pop("digest", None)  # older versions wrote none
    if digest is not None and digest != digest_of(kept):
        raise ValueError("it was changed since it was written")
    forecasts, kinds = (
        tuple(map(Candidate.from_json, kept[name])) for name in ("forecasts", "kinds")
    )
    evidence, problem = Evidence(shape, kept["facts"]), kept.get("programme")
    if problem is not None:
        problem = KnapsackProblem.from_dict(problem, shape, blocks_of_axes(evidence))
    return Plan(evidence, forecasts, kinds, problem)


def check_plan(plan: Plan, space: Space) -> None:
    """Raises MALFORMED when no candidate of the model comes out, or none can be predicted."""
    starts = [start for of_axis in space.starts(*Stage).values() for start in of_axis]
    drawn = space.random(np.random.default_rng(0))
    for candidate in (drawn, space.dense, *starts, *space.forecasts, *space.kinds):
        if candidate.shape != space.shape:
            raise ValueError(f"a candidate has the shape {candidate.shape}")
        if plan.problem is not None:
            plan.problem.nats(candidate)
            plan.problem.parts(candidate)


def is_of_version_1(attributes: Mapping[str, Any]) -> bool:
    """Whether version 1 began the run. attributes: of its Optuna study."""
    return VERSION_1["forecast"] in attributes


def plan_of_version_1(attributes: Mapping[str, Any], shape: Shape) -> Plan:
    """Its importance is normalised already, which changes no order."""
    facts = {
        "heads": {"removed": attributes[VERSION_1["importance"]]},
        "attention": {"choices": attributes[VERSION_1["attention"]]},
    }
    evidence = Evidence(shape, facts)
    domains = {axis.name: axis.domain(axis.setting_default, evidence) for axis in axes()}
    forecasts = tuple(map(Candidate.from_json, attributes[VERSION_1["forecast"]]))
    return Plan(evidence, forecasts, kinds_of(Space(shape, domains)))


def kinds_of(space: Space) -> tuple[Candidate, ...]:
    """The uncompressed model with each start that differs in kind, not in size."""
    return tuple(
        space.dense.replaced(**{name: value})
        for name, domain in space.domains.items()
        for value in domain.kinds()
    )
