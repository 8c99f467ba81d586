"""The choice of the candidates that are worth minutes of distillation, after the search."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.proposers.standard import nondominated_records
from paretoformer.search.records.expected import with_expected
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.candidate import Candidate

LEFT = (0.4, 0.65, 0.25, 0.5)
"""Shares of a candidate's loss of quality that distillation may leave, until a round has shown it;
a bold one first, then a safe one. Five minutes left 0.33 and 0.56 (77 intents), 0.69 and 0.9
(entities), 0.64 and 0.65 (an embedder)."""
LEFT_BY_LABELS = (0.1, 0.4, 0.05, 0.25)
"""The same where distillation learns from labels that are new to the dense model. Of a loss of 0.11
of accuracy (77 intents) and of 0.09 of a rank correlation (pairs), six minutes left nothing. The
second is as if there were no labels: what they teach is not known."""
AROUND = (1.0, 2.0, 1.4, 0.7)
"""Shares that the next round expects, as multiples of the largest share that was left: the more a
candidate lost, the more is left, and what a small loss leaves is mostly noise (entities: 0.14 of
0.059 of F1, and -0.37 of 0.016)."""
SURE = 0.5
"""Share of the allowed loss up to which a candidate probably satisfies in the confirmation, too."""
LEAST_LEFT = 0.05
"""The lowest share that is believed: scores are noisy."""


def is_distilled(record: TrialRecord) -> bool:
    return record.candidate.seconds > 0


def to_distil(
    records: Sequence[TrialRecord],
    objectives: Sequence[Metric],
    quality: Requirement,
    minutes: float,
    slots: int,
    others: Sequence[Requirement] = (),
    left: Sequence[float] = LEFT,
) -> list[Candidate]:
    """For each share of the loss that may be left, the fastest candidate that would satisfy
    `quality`; at most `slots` of them, which are distilled in parallel. If there are fewer, but
    some, then also those with the least loss: a worker would be idle.

    Only candidates on the search's front that are faster than everything that surely satisfies it
    already (`SURE`), and that were not distilled before.

    minutes: for each of them. others: requirements that candidates must satisfy already, since
    distillation changes no cost. left: shares of the loss that the first round expects.

    Scores are those that are expected at a candidate's divergence.
    """
    done = with_expected([record for record in records if record.ok], quality.metric)
    searched = [record for record in done if not is_distilled(record)]
    cost = next((m for m in objectives if m.role == "cost"), None)
    dense = next((record for record in searched if record.candidate.is_dense), None)
    if cost is None or dense is None:
        return []

    def holds(record: TrialRecord, requirements: Sequence[Requirement]) -> bool:
        return all(r.holds(record.measurements, dense.measurements) for r in requirements)

    reference = dense.measurements[quality.metric].value
    margin = (1 - SURE) * (reference - quality.bound(reference))
    answers = [
        record
        for record in done
        if holds(record, (quality, *others))
        and not quality.shortfall(record.measurements[quality.metric].value - margin, reference)
    ]
    limit = min((record.measurements[cost.name].value for record in answers), default=float("inf"))
    before = {record.candidate.with_minutes(minutes) for record in records if is_distilled(record)}
    front = [
        record
        for record in nondominated_records(searched, objectives)
        if record.candidate.with_minutes(minutes) not in {record.candidate, *before}
        and record.measurements[cost.name].value < limit
        and holds(record, others)
    ]
    front.sort(key=lambda record: record.measurements[cost.name].value)
    picks = _picks(front, quality, dense, shares_left(done, quality, dense, left))
    front.sort(key=lambda record: abs(reference - record.measurements[quality.metric].value))
    rest = [record.candidate for record in front if record.candidate not in picks]
    chosen = [*picks, *rest][:slots] if picks else []
    return [candidate.with_minutes(minutes) for candidate in chosen]


def shares_left(
    records: Sequence[TrialRecord], quality: Requirement, dense: TrialRecord, first: Sequence[float]
) -> Sequence[float]:
    """Shares of the loss that distillation may leave: around what it left so far, or `first`."""
    reference = dense.measurements[quality.metric].value
    losses = {
        record.candidate: reference - record.measurements[quality.metric].value
        for record in records
        if quality.metric in record.measurements
    }
    found = []
    for record in filter(is_distilled, records):
        minutes = record.candidate.seconds / 60
        parents = (c for c in losses if c != record.candidate and not c.seconds)
        parent = next((c for c in parents if c.with_minutes(minutes) == record.candidate), None)
        if parent is not None and losses[parent] and record.candidate in losses:
            found.append(losses[record.candidate] / losses[parent])
    if not found:
        return first
    left = max(*found, LEAST_LEFT)
    return [share * left for share in AROUND]


def _picks(
    front: Sequence[TrialRecord],
    quality: Requirement,
    dense: TrialRecord,
    shares: Sequence[float],
) -> list[Candidate]:
    """For each share, the first unpicked candidate that would satisfy `quality`."""
    reference = dense.measurements[quality.metric].value
    picks: list[Candidate] = []
    for left in shares:
        for record in front:
            loss = reference - record.measurements[quality.metric].value
            fits = not quality.shortfall(reference - left * loss, reference)
            if fits and record.candidate not in picks:
                picks.append(record.candidate)
                break
    return picks
