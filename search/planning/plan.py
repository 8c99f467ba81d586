"""The plan of a study: evidence about its model, kept with the run in `evidence.json`.

A resumed study keeps its plan, even if a later version knows more axes, mechanisms or runtimes.
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
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.axes.block_options import BlockKind
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Evidence, Shape
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import write_atomically
from paretoformer.spaces.common.malformed import digest_of, json_object
from paretoformer.spaces.space import Space

VERSION_1 = {"attention": "attention", "importance": "importance", "forecast": "forecast"}
"""User attributes of the study in which version 1 kept the contents of `evidence.json`."""


@dataclass(frozen=True)
class Plan:
    """The candidates to try first, and the evidence for them.

    forecasts: candidates that should trade well, the slowest first. kinds: the uncompressed model
    with another kind of a part, such as a mechanism. problem: predicts candidates; None without a
    block table. notes: for the user, one sentence per entry; not kept.
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
    """solved: candidates come from a knapsack problem, so the domains must contain them."""
    settings = {axis.name: spec.setting(axis.name) for axis in axes()}
    domains = domains_of(evidence, settings)
    if solved:
        domains = {name: domain.solved() for name, domain in domains.items()}
    return Space(evidence.shape, domains)


def domains_of(evidence: Evidence, settings: Mapping[str, Any]) -> dict[str, Domain[Any]]:
    """An axis that did not exist when the study began keeps its default."""
    facts, shape = evidence.facts, evidence.shape
    return {
        axis.name: axis.domain(settings[axis.name], facts[axis.name], shape)
        if axis.name in facts
        else Fixed(axis.default(shape))
        for axis in axes()
    }


def blocks_of_axes(evidence: Evidence) -> dict[str, BlockKind]:
    """The parts of a layer that a study may change, by name."""
    found: Mapping[str, BlockKind] = {}
    for axis in axes():
        if axis.name in evidence.facts:
            found = axis.blocks(evidence.facts[axis.name], evidence.shape, found)
    return dict(found)


def write_plan(path: Path, plan: Plan) -> None:
    kept = {
        "facts": {name: facts.to_json() for name, facts in plan.evidence.facts.items()},
        "forecasts": [candidate.to_json() for candidate in plan.forecasts],
        "kinds": [candidate.to_json() for candidate in plan.kinds],
        "programme": None if plan.problem is None else plan.problem.to_dict(),
    }
    # Digest of the text as it will be read: JSON has no tuples.
    digest = digest_of(json.loads(json.dumps(kept)))
    write_atomically(path, json.dumps({**kept, "digest": digest}) + "\n")


def read_plan(path: Path, shape: Shape) -> Plan:
    """Raises OSError or MALFORMED if it is not from `write_plan`."""
    kept = json_object(path.read_bytes())
    digest = kept.pop("digest", None)  # older versions wrote none
    if digest is not None and digest != digest_of(kept):
        raise ValueError("it was changed since it was written")
    forecasts, kinds = (
        tuple(map(Candidate.from_json, kept[name])) for name in ("forecasts", "kinds")
    )
    evidence, problem = evidence_of(shape, kept["facts"]), kept.get("programme")
    if problem is not None:
        problem = KnapsackProblem.from_dict(problem, shape, blocks_of_axes(evidence))
    return Plan(evidence, forecasts, kinds, problem)


def evidence_of(shape: Shape, facts: Mapping[str, Any]) -> Evidence:
    """Raises MALFORMED if these are not facts of axes, as JSON stores them."""
    known = {axis.name: axis.facts for axis in axes()}
    return Evidence(
        shape,
        {name: known[name].from_json(data) for name, data in facts.items() if name in known},
    )


def check_plan(plan: Plan, space: Space) -> None:
    """Raises MALFORMED if candidates do not fit the model or cannot be predicted."""
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
    """Version 1 stored normalised importance, which keeps the order."""
    facts = {
        "heads": {"removed": attributes[VERSION_1["importance"]]},
        "attention": {"choices": attributes[VERSION_1["attention"]]},
    }
    evidence = evidence_of(shape, facts)
    domains = domains_of(evidence, {axis.name: axis.setting_default for axis in axes()})
    forecasts = tuple(map(Candidate.from_json, attributes[VERSION_1["forecast"]]))
    return Plan(evidence, forecasts, kinds_of(Space(shape, domains)))


def kinds_of(space: Space) -> tuple[Candidate, ...]:
    """The uncompressed model with every start that differs in kind, not in size."""
    return tuple(
        space.dense.replaced(**{name: value})
        for name, domain in space.domains.items()
        for value in domain.kinds()
    )
