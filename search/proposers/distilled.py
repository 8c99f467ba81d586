"""The choice of the candidates that are worth minutes of distillation, after the search."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.proposers.standard import nondominated_records
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.candidate import Candidate

LEFT = (0.25, 0.4, 0.15, 0.6)
"""Shares of a candidate's loss of quality that distillation may leave; with little time, only the
first ones are used. On the built-in studies, two minutes left half of the loss after least squares,
and five minutes at most a third."""
ENOUGH = 4.0
"""Minutes that one distillation should have; with less time, fewer candidates are distilled."""


def is_distilled(record: TrialRecord) -> bool:
    return record.candidate.seconds > 0


def to_distil(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    quality: Requirement,
    minutes: float,
    slots: int,
    others: Sequence[Requirement] = (),
) -> list[Candidate]:
    """The fastest candidates that may come to satisfy `quality`, at each share in `LEFT`.

    Only candidates on the search's front. `slots` of them are distilled in parallel.

    minutes: wall time in total. others: requirements that candidates must satisfy already, since
    distillation changes no cost.
    """
    searched = [record for record in records if record.ok and not is_distilled(record)]
    cost = next((m for m in objectives if m.role == "cost"), None)
    dense = next((record for record in searched if record.candidate.is_dense), None)
    if cost is None or dense is None:
        return []
    front = [
        record
        for record in nondominated_records(searched, objectives)
        if record.candidate.with_minutes(minutes) != record.candidate
        and all(other.holds(record.measurements, dense.measurements) for other in others)
    ]
    front.sort(key=lambda record: record.measurements[cost.name].value)
    picks = _picks(front, quality, dense)[: slots * max(1, int(minutes / ENOUGH))]
    rounds = -(-len(picks) // slots)
    share = minutes / max(1, rounds)
    share = int(2 * share) / 2 if share >= 1 else share
    return [candidate.with_minutes(share) for candidate in picks]


def _picks(
    front: Sequence[TrialRecord], quality: Requirement, dense: TrialRecord
) -> list[Candidate]:
    """For each share in `LEFT`, the first unpicked candidate that may come to satisfy `quality`."""
    reference = dense.measurements[quality.metric].value
    picks: list[Candidate] = []
    for left in LEFT:
        for record in front:
            loss = reference - record.measurements[quality.metric].value
            fits = not quality.shortfall(reference - left * loss, reference)
            if fits and record.candidate not in picks:
                picks.append(record.candidate)
                break
    return picks
