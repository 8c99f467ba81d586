"""The points to confirm: the search's front, points that may be as good, and the baselines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain, zip_longest

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics import Metric, metric_of
from paretoformer.search.records.dominance import Values, clearly_dominated, nondominated
from paretoformer.search.records.expected import with_expected
from paretoformer.search.records.facts import DIVERGENCE
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.candidate import Candidate


def chosen(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    always: Collection[Candidate] = (),
    requirements: Sequence[Requirement] = (),
    confirmed: Collection[str] = (),
) -> list[TrialRecord]:
    """The dense model, the search's front, points that may be as good and may satisfy the
    requirements, and those that satisfy them most surely.

    always: candidates to choose whatever their numbers, if they ran. confirmed: ids of confirmed
    candidates, which stay as long as they may be on the front.
    """
    done = [record for record in records if record.ok]
    directions = [metric.direction for metric in objectives]
    values, lows, highs = intervals(done, objectives)
    lost = clearly_dominated(values, lows, highs, directions)
    front = nondominated(values, directions)
    dense = [record for record in done if record.candidate.is_dense]
    sure = _surest(done, objectives, requirements)

    def may_answer(record: TrialRecord) -> bool:
        if record.candidate.id in confirmed or not dense:
            return True
        return all(r.may_hold(record.measurements, dense[0].measurements) for r in requirements)

    return dense + [
        record
        for record, is_lost, is_best in zip(done, lost, front, strict=True)
        if not record.candidate.is_dense
        and (
            record.candidate in always
            or record.candidate in sure
            or (not is_lost and (is_best or may_answer(record)))
        )
    ]


def _surest(
    done: Sequence[TrialRecord], objectives: Sequence[Metric], requirements: Sequence[Requirement]
) -> set[Candidate]:
    """Of the records that satisfy the requirements, the fastest at each divergence.

    A score of some hundred examples is luck in part: on pairs of SICK, the fastest candidate seemed
    as good as the dense model and missed the requirement in the confirmation, and all that were
    slower and nearer to the dense model's answers had been left out, since it dominated them.
    """
    dense = next((record for record in done if record.candidate.is_dense), None)
    if dense is None or not requirements:
        return set()
    known = [
        record
        for record in done
        if DIVERGENCE in record.measurements
        and all(r.holds(record.measurements, dense.measurements) for r in requirements)
    ]
    cost = cost_of(objectives)
    if not all(cost.name in record.measurements for record in known):
        return set()
    values = [[r.measurements[n].value for n in (cost.name, DIVERGENCE)] for r in known]
    best = nondominated(np.array(values).reshape(-1, 2), (cost.direction, "minimize"))
    return {record.candidate for record, is_best in zip(known, best, strict=True) if is_best}


def cost_of(objectives: Sequence[Metric]) -> Metric:
    """The first cost among the objectives, or the last of them."""
    return next((metric for metric in objectives if metric.role == "cost"), objectives[-1])


def by_importance(
    picked: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    requirements: Sequence[Requirement],
    alternatives: Collection[Candidate],
) -> list[TrialRecord]:
    """Dense; the likely answer and the alternative to compare it with; then in turn the other
    candidates that satisfy the requirements, by cost; those that miss them, the nearest first; and
    the other alternatives. What satisfies is judged by the scores expected at the divergences.

    picked: from `chosen`.
    """
    dense, *others = picked
    cost = cost_of(objectives)
    others.sort(key=lambda record: record.measurements[cost.name].value)
    likely: Sequence[TrialRecord] = picked
    for r in requirements:
        if metric_of(r.metric).role == "quality":
            likely = with_expected(likely, r.metric)
    expected = {record.candidate: record.measurements for record in likely}

    def missing(record: TrialRecord) -> float:
        """By how much the requirements are missed, in total."""
        found = expected[record.candidate], dense.measurements
        if not all(r.metric in measured for r in requirements for measured in found):
            return float("inf")
        return sum(
            r.shortfall(*(measured[r.metric].value for measured in found)) for r in requirements
        )

    uncut = sorted((r for r in others if r.candidate in alternatives), key=missing)
    cut = [record for record in others if record.candidate not in alternatives]
    fit = [record for record in cut if not missing(record)]
    near = sorted((record for record in cut if missing(record)), key=missing)
    turns = chain.from_iterable(zip_longest(fit[1:], near, uncut[1:]))
    ranked = (*fit[:1], *uncut[:1], *turns)
    return [dense, *(record for record in ranked if record is not None)]


def dropped(records: Sequence[TrialRecord], picked: Sequence[TrialRecord]) -> list[Candidate]:
    """Measured candidates that will not be confirmed, now or after more records.

    picked: from `chosen`.
    """
    kept = {record.candidate for record in picked}
    return [record.candidate for record in records if record.candidate not in kept]


def intervals(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> tuple[Values, Values, Values]:
    """Values, lows and highs, each (records, objectives); NaN for failed records."""
    missing = Measurement(np.nan, np.nan, np.nan, "")
    found = [[r.measurements.get(metric.name, missing) for metric in objectives] for r in records]
    values, lows, highs = (
        np.array([[getattr(m, end) for m in row] for row in found]).reshape(-1, len(objectives))
        for end in ("value", "low", "high")
    )
    return values, lows, highs
