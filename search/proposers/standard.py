"""The proposers of a study, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import numpy as np

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.proposers.crossed import Crossed
from paretoformer.search.proposers.planted import Planted
from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.records.dominance import as_costs, nondominated
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space, spread_evenly

BEST = 2
"""How many of what did best by itself are combined with other things."""
THINNED = 3
"""Starts of one axis that are combined with something else, at most."""


def standard_proposers(
    space: Space, objectives: Sequence[Metric], requirements: Sequence[Requirement] = ()
) -> list[Proposer]:
    """Dense and the alternatives; structures, served by the alternatives that did best; crosses.

    The uncompressed model in every runtime comes first, since a structure is worth measuring in the
    runtime that will serve it.
    """
    return [
        begin(space),
        Crossed(
            bases=lambda records: [space.dense, *alternatives(space)],
            choose=partial(fastest, objectives=objectives, requirements=requirements),
            cross=lambda base, place: [served(each, base) for each in structures(space, place)],
        ),
        Crossed(
            bases=partial(_served_kinds, space, objectives, requirements),
            choose=partial(best_by_quality, objectives=objectives),
            cross=lambda base, place: _with_kind(space, base),
        ),
    ]


def begin(space: Space) -> Planted:
    """Dense, and the uncompressed model in every other runtime."""
    return Planted((space.dense, *alternatives(space)))


def best_servings(
    space: Space,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    records: Records,
) -> Sequence[Candidate]:
    """The uncompressed model in the runtimes that did best, once all were measured."""
    servings = [space.dense, *alternatives(space)]
    if any(each.id not in records for each in servings):
        return ()
    measured = [records[each.id] for each in servings if records[each.id].ok]
    return [each.candidate for each in fastest(measured, objectives, requirements) or measured]


def alternatives(space: Space) -> list[Candidate]:
    """The uncompressed model in every other runtime and precision: what users could do alone."""
    return list(chain(*space.starts(Stage.RUNTIME).values()))


def structures(space: Space, place: int = 0) -> list[Candidate]:
    """What was forecast; for the best runtime also the kinds, and the starts of each axis.

    place: of the runtime among the best, 0 for the first. Where there are several runtimes, fewer
    starts are taken, since each costs a conversion.
    """
    if place:
        return list(space.forecasts)
    count = THINNED if alternatives(space) else None
    sizes = space.sizes().values()
    thinned = (each if count is None else spread_evenly(each, count) for each in sizes)
    free = space.completed(space.dense)  # what costs no quality, by itself
    found = dict.fromkeys((free, *space.forecasts, *space.kinds, *chain(*thinned)))
    return [each for each in found if not each.is_dense]


def served(structure: Candidate, base: Candidate) -> Candidate:
    """A structure in the runtime of `base`."""
    return structure.replaced(**base.of_stage(Stage.RUNTIME))


def _served_kinds(
    space: Space,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    records: Records,
) -> Sequence[Candidate]:
    """The starts that differ in kind, such as mechanisms, in the runtime that did best."""
    if not space.kinds:
        return ()
    bases = best_servings(space, objectives, requirements, records)[:1]
    return [served(each, base) for base in bases for each in space.kinds]


def _with_kind(space: Space, base: Candidate) -> list[Candidate]:
    """A base's kind and runtime with fewer heads, neurons or layers."""
    starts = (spread_evenly(each, THINNED) for each in space.sizes().values())
    some = [*spread_evenly(space.forecasts, THINNED), *chain(*starts)]
    changed = {name: base[name] for name in base.changes()}
    return [each.replaced(**changed) for each in some]


def fastest(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
) -> list[TrialRecord]:
    """The best two by the first cost, of the non-dominated that satisfy the requirements."""
    dense = next(record for record in records if record.candidate.is_dense)
    front = nondominated_records(records, objectives)
    fit = [record for record in front if _satisfies(record, dense, requirements)] or [dense]
    cost = next((m for m in objectives if m.role == "cost"), objectives[-1])
    return sorted(fit, key=lambda record: record.measurements[cost.name].value)[:BEST]


def best_by_quality(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> list[TrialRecord]:
    """Of the non-dominated, the best two in the first objective."""
    costs = as_costs(_values(records, objectives), [m.direction for m in objectives])
    order = {record.trial: cost for record, cost in zip(records, costs[:, 0], strict=True)}
    return sorted(
        nondominated_records(records, objectives), key=lambda record: order[record.trial]
    )[:BEST]


def nondominated_records(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> list[TrialRecord]:
    keep = nondominated(_values(records, objectives), [m.direction for m in objectives])
    return [record for record, kept in zip(records, keep, strict=True) if kept]


def _values(records: Sequence[TrialRecord], objectives: Sequence[Metric]) -> np.ndarray:
    return np.array([record.values([m.name for m in objectives]) for record in records])


def _satisfies(
    record: TrialRecord, dense: TrialRecord, requirements: Sequence[Requirement]
) -> bool:
    """Within its interval: few examples must not rule out what more of them would let pass."""
    for requirement in requirements:
        if requirement.metric not in record.measurements:
            return False
        found, reference = (r.measurements[requirement.metric] for r in (record, dense))
        best = found.high if requirement.operator.startswith(">") else found.low
        if requirement.shortfall(best, reference.value):
            return False
    return True
