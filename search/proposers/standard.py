"""The standard proposers, for studies without a block table, in the order they are asked."""

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
"""The number of best candidates that are combined with other changes."""
NEAR = 1.3
"""A second one must cost less than this multiple of the first: what slows the uncompressed model
down slows a cut one down too."""
THINNED = 3
"""Limit for the starts of one axis that are combined with something else."""


def standard_proposers(
    space: Space, objectives: Sequence[Metric], requirements: Sequence[Requirement] = ()
) -> list[Proposer]:
    """Dense and the alternatives; cuts in the best runtimes; the best kinds, crossed with cuts.

    The uncompressed model comes first in every runtime, to know which runtimes are worth it.
    """
    return [
        begin(space),
        Crossed(
            bases=lambda records: [space.dense, *alternatives(space)],
            choose=partial(fastest, objectives=objectives, requirements=requirements),
            cross=lambda base, place: [served(cut, base) for cut in structures(space, place)],
        ),
        Crossed(
            bases=partial(_served_kinds, space, objectives, requirements),
            choose=partial(best_by_quality, objectives=objectives),
            cross=lambda base, place: _with_kind(space, base),
        ),
    ]


def begin(space: Space) -> Planted:
    return Planted((space.dense, *alternatives(space)))


def best_servings(
    space: Space,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    records: Records,
) -> Sequence[Candidate]:
    """The uncompressed model in the best runtimes; empty until all runtimes are measured."""
    servings = [space.dense, *alternatives(space)]
    if any(serving.id not in records for serving in servings):
        return ()
    measured = [records[serving.id] for serving in servings if records[serving.id].ok]
    return [record.candidate for record in fastest(measured, objectives, requirements) or measured]


def alternatives(space: Space) -> list[Candidate]:
    """The uncompressed model in every other runtime and precision, as users could run it."""
    return list(chain(*space.starts(Stage.RUNTIME).values()))


def structures(space: Space, place: int = 0) -> list[Candidate]:
    """The forecasts; for the best runtime also the kinds, and the starts of every axis.

    place: rank of the runtime, 0 for the best. With several runtimes fewer starts are taken, since
    every start costs a conversion.
    """
    if place:
        return list(space.forecasts)
    count = THINNED if alternatives(space) else None
    sizes = space.sizes().values()
    thinned = (starts if count is None else spread_evenly(starts, count) for starts in sizes)
    free = space.completed(space.dense)  # changes that cost no quality, alone
    found = dict.fromkeys((free, *space.forecasts, *space.kinds, *chain(*thinned)))
    return [candidate for candidate in found if not candidate.is_dense]


def served(structure: Candidate, base: Candidate) -> Candidate:
    """A structure in the runtime of `base`."""
    return structure.replaced(**base.of_stage(Stage.RUNTIME))


def _served_kinds(
    space: Space,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    records: Records,
) -> Sequence[Candidate]:
    if not space.kinds:
        return ()
    bases = best_servings(space, objectives, requirements, records)[:1]
    return [served(kind, base) for base in bases for kind in space.kinds]


def _with_kind(space: Space, base: Candidate) -> list[Candidate]:
    """A base's kind and runtime, with fewer heads, neurons or layers."""
    starts = (spread_evenly(of_axis, THINNED) for of_axis in space.sizes().values())
    some = [*spread_evenly(space.forecasts, THINNED), *chain(*starts)]
    changed = {name: base[name] for name in base.changes()}
    return [candidate.replaced(**changed) for candidate in some]


def fastest(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
) -> list[TrialRecord]:
    """The best two by the first cost, among non-dominated records that may satisfy requirements;
    only the best if the second is far behind.

    Intervals decide what may: a few examples must not exclude what more of them would accept.
    """
    dense = next(record for record in records if record.candidate.is_dense)
    fit = [
        record
        for record in nondominated_records(records, objectives)
        if all(r.may_hold(record.measurements, dense.measurements) for r in requirements)
    ]
    cost = next((m for m in objectives if m.role == "cost"), objectives[-1])
    best = _best_two(fit or [dense], cost)
    limit = NEAR * best[0].measurements[cost.name].value
    return [r for r in best if cost.role != "cost" or r.measurements[cost.name].value <= limit]


def best_by_quality(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> list[TrialRecord]:
    """The best two in the first objective, among non-dominated records."""
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
