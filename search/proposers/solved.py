"""Candidates that were solved from a block table, in the best runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.proposers.bisection import by_bisection
from paretoformer.search.proposers.crossed import Crossed
from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.proposers.standard import (
    alternatives,
    begin,
    fastest,
    served,
)
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.samplers import quality_and_latency
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import spread_evenly

SECOND = 4
"""Forecasts that are also measured in the second-best runtime."""
REACH = 8
"""Multiple of the allowed loss of quality that is of use, since distillation may recover it."""
REACH_BY_LABELS = 20
"""The same where it also learns from labels."""
NEAR = 2
"""The same where no distillation follows: the search keeps close to the requirement."""


def solved_proposers(
    predictor: Predictor,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement] = (),
    *,
    at_once: int = 2,
) -> list[Proposer]:
    """Dense and the alternatives; the forecasts in the best runtimes, starting where the
    requirements stop holding.

    at_once: forecasts under way at the same time. The more there are, the fewer results are known
    when the next one is chosen.
    """
    space = predictor.space
    free = space.completed(space.dense)  # changes that cost no quality, alone

    def forecast(base: Candidate, place: int) -> list[Candidate]:
        found = spread_evenly(space.forecasts, SECOND) if place else list(space.forecasts)
        return [served(cut, base) for cut in dict.fromkeys((free, *found)) if not cut.is_dense]

    def ordered(found: Sequence[Candidate], records: Records) -> list[Candidate]:
        alone = [c for c in found if c == served(free, c)]
        path = [c for c in found if c not in alone]
        holds = [satisfies(c, space.dense, records, objectives, requirements) for c in path]
        return [*alone, *(path[place] for place in by_bisection(holds))]

    forecasts = Crossed(
        bases=lambda records: [space.dense, *alternatives(space)],
        choose=partial(fastest, objectives=objectives, requirements=requirements),
        cross=forecast,
        order=ordered,
        at_once=at_once,
    )
    return [begin(space), forecasts]


def satisfies(
    candidate: Candidate,
    dense: Candidate,
    records: Records,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
) -> bool | None:
    """Whether it may satisfy the requirements on quality; None: not measured, or none required."""
    quality, _ = quality_and_latency(objectives)
    wanted = [r for r in requirements if quality and r.metric == quality.name]
    found, reference = (records.get(key.id) for key in (candidate, dense))
    if not wanted or found is None or reference is None or not (found.ok and reference.ok):
        return None
    return all(r.may_hold(found.measurements, reference.measurements) for r in wanted)


def least_of_use(
    requirements: Sequence[Requirement], quality: Metric, dense: float, reach: float = REACH
) -> float | None:
    """The quality below which a candidate is of no use; None if no requirement says so.

    reach: multiple of the allowed loss of quality that is still of use.
    """
    sign = 1.0 if quality.direction == "maximize" else -1.0
    for requirement in requirements:
        allowed = dense - requirement.bound(dense)
        if requirement.metric == quality.name and sign * allowed > 0:
            return dense - reach * allowed
    return None
