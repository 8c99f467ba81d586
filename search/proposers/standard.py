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
from paretoformer.search.records.dominance import nondominated
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
    """Without a block table: dense and the alternatives; cuts, served by the alternatives that did
    best; kinds that did well, crossed with cuts.

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
    """The kinds, in the runtime that did best."""
    if not space.kinds:
        return ()
    bases = best_servings(space, objectives, requirements, records)[:1]
    return [served(kind, base) for base in bases for kind in space.kinds]


def _with_kind(space: Space, base: Candidate) -> list[Candidate]:
    """A base's kind and runtime with fewer heads, neurons or layers."""
    starts = (spread_evenly(of_axis, THINNED) for of_axis in space.sizes().values())
    some = [*spread_evenly(space.forecasts, THINNED), *chain(*starts)]
    changed = {name: base[name] for name in base.changes()}
    return [candidate.replaced(**changed) for candidate in some]


def fastest(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
) -> list[TrialRecord]:
    """The best two by the first cost, of the non-dominated that may satisfy the requirements.

    They may where their intervals reach: few examples must not rule out what more of them would let
    pass.
    """
    dense = next(record for record in records if record.candidate.is_dense)
    fit = [
        record
        for record in nondominated_records(records, objectives)
        if all(each.may_hold(record.measurements, dense.measurements) for each in requirements)
    ]
    cost = next((m for m in objectives if m.role == "cost"), objectives[-1])
    return _best_two(fit or [dense], cost)


def best_by_quality(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> list[TrialRecord]:
    """Of the non-dominated, the best two in the first objective."""
    return _best_two(nondominated_records(records, objectives), objectives[0])


def _best_two(records: Sequence[TrialRecord], metric: Metric) -> list[TrialRecord]:
    sign = -1.0 if metric.direction == "maximize" else 1.0
    return sorted(records, key=lambda record: sign * record.measurements[metric.name].value)[:BEST]


def nondominated_records(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> list[TrialRecord]:
    names = [metric.name for metric in objectives]
    values = np.array([record.values(names) for record in records])
    keep = nondominated(values, [metric.direction for metric in objectives])
    return [record for record, kept in zip(records, keep, strict=True) if kept]
