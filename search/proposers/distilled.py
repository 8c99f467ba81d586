"""Which candidates are worth minutes of distillation, once the search is done."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.proposers.standard import nondominated_records
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.candidate import Candidate

LEFT = (0.25, 0.4, 0.15, 0.6)
"""Shares of a candidate's loss of quality that distillation may leave; with little time, the first
ones count. On the built-in studies two minutes left a half of what least squares had left, and five
minutes between nothing and a third."""
ENOUGH = 4.0
"""Minutes that one distillation should have; where there are fewer, fewer are distilled."""


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

    Of the search's front only, so that each is the best of its speed. The minutes are wall time:
    `slots` candidates are distilled side by side.

    others: what they must satisfy already, for distillation changes no cost.
    """
    searched = [record for record in records if record.ok and not is_distilled(record)]
    cost = next((m for m in objectives if m.role == "cost"), None)
    dense = next((record for record in searched if record.candidate.is_dense), None)
    if cost is None or dense is None:
        return []
    front = nondominated_records(searched, objectives)
    front = [
        record
        for record in front
        if record.candidate.given(minutes) != record.candidate
        and all(each.holds(record.measurements, dense.measurements) for each in others)
    ]
    front.sort(key=lambda record: record.measurements[cost.name].value)
    reference = dense.measurements[quality.metric].value
    picks: dict[Candidate, None] = {}
    for left in LEFT:
        for record in front:
            loss = reference - record.measurements[quality.metric].value
            if not quality.shortfall(reference - left * loss, reference):
                if record.candidate in picks:
                    continue  # the next slower one, then
                picks[record.candidate] = None
                break
    most = slots * max(1, int(minutes / ENOUGH))
    some = list(picks)[:most]
    if not some:
        return []
    each = minutes / -(-len(some) // slots)  # as many rounds as it takes
    each = int(2 * each) / 2 if each >= 1 else each
    return [candidate.given(each) for candidate in some]
