"""Proposer `Crossed`: what did well by itself, combined with other things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.results.record import TrialRecord
from paretoformer.spaces.candidate import Candidate


@dataclass(frozen=True)
class Crossed(Proposer):
    """Once all `bases` were measured, the best of them with what `cross` makes of each.

    bases: asked for each time, since they may depend on what was measured.
    choose: of the records of the bases that were measured, the best.
    cross: called with each of the best and its place among them.
    """

    bases: Callable[[Records], Sequence[Candidate]]
    choose: Callable[[Sequence[TrialRecord]], Sequence[TrialRecord]]
    cross: Callable[[Candidate, int], Sequence[Candidate]]

    def waits(self, records: Records) -> bool:
        return any(base.id not in records for base in self.bases(records))

    def propose(self, records: Records) -> Sequence[Candidate]:
        bases = self.bases(records)
        if not bases or self.waits(records):
            return ()
        measured = [records[base.id] for base in bases if records[base.id].ok]
        chosen = self.choose(measured) if measured else ()
        return [
            each
            for place, record in enumerate(chosen)
            for each in self.cross(record.candidate, place)
        ]
