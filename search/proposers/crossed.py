"""Proposer `Crossed`: what did well by itself, combined with other things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.results.record import TrialRecord
from paretoformer.spaces.candidate import Candidate


@dataclass
class Crossed(Proposer):
    """Once all `bases` were measured, the best of them with what `cross` makes of each.

    That is made once: it depends on the records of the bases alone.

    bases: asked for until they are there, since they may depend on what was measured.
    choose: of the records of the bases that were measured, the best.
    cross: called with each of the best and its place among them.
    """

    bases: Callable[[Records], Sequence[Candidate]]
    choose: Callable[[Sequence[TrialRecord]], Sequence[TrialRecord]]
    cross: Callable[[Candidate, int], Sequence[Candidate]]
    _made: list[Candidate] | None = field(default=None, init=False)

    def waits(self, records: Records) -> bool:
        return self._made is None and any(base.id not in records for base in self.bases(records))

    def propose(self, records: Records) -> Sequence[Candidate]:
        if self._made is None:
            bases = self.bases(records)
            if not bases or any(base.id not in records for base in bases):
                return ()
            self._made = self._cross([records[base.id] for base in bases])
        return self._made

    def _cross(self, bases: Sequence[TrialRecord]) -> list[Candidate]:
        measured = [record for record in bases if record.ok]
        chosen = self.choose(measured) if measured else ()
        return [
            each
            for place, record in enumerate(chosen)
            for each in self.cross(record.candidate, place)
        ]
