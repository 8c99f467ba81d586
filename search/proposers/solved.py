"""Proposer `Solved`: candidates with the largest predicted gain, in the best runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.planning.knapsack import KnapsackProblem
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.proposers.bisection import by_bisection
from paretoformer.search.proposers.crossed import Crossed
from paretoformer.search.proposers.gain import Gain
from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.proposers.standard import (
    alternatives,
    begin,
    best_servings,
    fastest,
    served,
)
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.samplers import quality_and_latency
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space, spread_evenly

SECOND = 4
"""Forecasts that are also measured in the second-best runtime."""
BATCH = 4
"""Candidates per round; the next round uses their results."""
LOOKED_AT = 100
"""Budgets that a round solves per runtime."""
REACH = 8
"""Multiple of the allowed loss of quality that is of use, since distillation may recover it."""
NEAR = 2
"""The same in every second round, which searches close to the requirement."""
LEAST = 4
"""Measured structures that a runtime needs before its front is solved."""


def solved_proposers(
    predictor: Predictor,
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement] = (),
    *,
    rounds: bool = True,
    at_once: int = 2,
) -> list[Proposer]:
    """Dense and the alternatives; the forecasts in the best runtimes, starting where the
    requirements stop holding; then rounds of `Solved`.

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
    first: list[Proposer] = [begin(space), forecasts]
    return [*first, Solved(predictor, objectives, requirements, forecasts)] if rounds else first


class Option(NamedTuple):
    """A candidate with its predicted quality and milliseconds."""

    candidate: Candidate
    quality: float
    milliseconds: float


@dataclass
class Solved(Proposer):
    """Rounds of the candidates with the largest predicted gain of hypervolume.

    The first objective is predicted from nats, by a monotone curve through measured candidates.

    requirements: if one allows a loss of quality, candidates that lose `REACH` times as much (in
    every second round, `NEAR` times) gain nothing.
    forecasts: measured before the first round.
    """

    predictor: Predictor
    objectives: Sequence[Metric]
    requirements: Sequence[Requirement]
    forecasts: Crossed
    _asked: tuple[Candidate, ...] = field(default=(), init=False)
    _rounds: int = field(default=0, init=False)

    @property
    def space(self) -> Space:
        return self.predictor.space

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        asked = any(c.id not in records for c in self._asked)
        return asked or self.forecasts.is_left(records)

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        """Empty until all forecasts are measured, then one round after the other."""
        if self.waits(records, under_way):
            return self._asked
        self._asked = tuple(self._round(records))
        return self._asked

    def _round(self, records: Records) -> list[Candidate]:
        quality, latency = quality_and_latency(self.objectives)
        if quality is None or latency is None or self.space.dense.id not in records:
            return []
        options: list[Option] = []
        for base in best_servings(self.space, self.objectives, self.requirements, records):
            options += self._options(base, records, quality)
        known = [
            (record.measurements[quality.name].value, record.measurements[latency.name].value)
            for record in records.values()
            if record.ok and all(m.name in record.measurements for m in (quality, latency))
        ]
        dense = records[self.space.dense.id].measurements[quality.name].value
        self._rounds += 1
        reach = REACH if self._rounds % 2 else NEAR
        least = least_of_use(self.requirements, quality, dense, reach)
        return _best(options, known, quality, least)

    def _options(self, base: Candidate, records: Records, quality: Metric) -> Iterator[Option]:
        """Solved candidates in one runtime that are not measured yet."""
        dense = records.get(base.id)
        cut = [r for r in self.predictor.cut(base, records) if not r.candidate.seconds]
        model = self.predictor.latency_model(base, records)
        if len(cut) < LEAST or model is None or dense is None or not dense.ok:
            return
        curve = _curve(model.problem, [dense, *cut], quality)
        for solution in model.solutions().along(LOOKED_AT):
            candidate = self.predictor.served(solution.candidate, base)
            if candidate.id not in records:
                yield Option(candidate, curve(solution.nats), model.predict(candidate))


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


def _curve(
    problem: KnapsackProblem, records: Sequence[TrialRecord], quality: Metric
) -> Callable[[float], float]:
    """Predicted nats -> quality: monotone, fitted to the records."""
    pairs = [
        (problem.nats(record.candidate), record.measurements[quality.name].value)
        for record in records
    ]
    nats, values = np.array([pair for pair in pairs if np.isfinite(pair[0])]).T
    order = np.argsort(nats)
    sign = 1.0 if quality.direction == "minimize" else -1.0
    fitted = sign * isotonic_regression(sign * values[order]).x
    return lambda wanted: float(np.interp(wanted, nats[order], fitted))


def _best(
    options: Sequence[Option],
    known: Sequence[tuple[float, float]],
    quality: Metric,
    least: float | None,
) -> list[Candidate]:
    """Up to `BATCH` candidates, greedily by the hypervolume they add.

    known: (quality, milliseconds).
    """
    left = [option for option in options if option.milliseconds > 0]
    if not known or not left:
        return []
    gain = Gain(known, quality, least)
    picked: list[Candidate] = []
    while left and len(picked) < BATCH:
        gains = [gain.of(option.quality, option.milliseconds) for option in left]
        index = int(np.argmax(gains))
        if gains[index] <= 0:
            break
        best = left.pop(index)
        picked.append(best.candidate)
        gain.add(best.quality, best.milliseconds)
    return picked
