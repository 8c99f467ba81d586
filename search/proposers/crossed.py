"""Proposer `Crossed`: what did well by itself, combined with other things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.candidate import Candidate


@dataclass
class Crossed(Proposer):
    """Once all `bases` were measured, the best of them with what `cross` makes of each.

    That is made once: it depends on the records of the bases alone. The order in which it is
    proposed may change with every record.

    bases: asked for until they are there, since they may depend on what was measured.
    choose: of the records of the bases that were measured, the best.
    cross: called with each of the best and its place among them.
    order: called with what `cross` made of one of them, and with the records; puts the most useful
    first.
    at_once: the most that are proposed but not measured yet; None: all are proposed at once.
    """

    bases: Callable[[Records], Sequence[Candidate]]
    choose: Callable[[Sequence[TrialRecord]], Sequence[TrialRecord]]
    cross: Callable[[Candidate, int], Sequence[Candidate]]
    order: Callable[[Sequence[Candidate], Records], Sequence[Candidate]] = lambda made, _: made
    at_once: int | None = None
    _made: list[Sequence[Candidate]] | None = field(default=None, init=False)
    _proposed: dict[str, Candidate] = field(default_factory=dict, init=False)

    def waits(self, records: Records) -> bool:
        if self._made is None:
            return any(base.id not in records for base in self.bases(records))
        if self.at_once is None:
            return False
        every = (each for made in self._made for each in made)
        return any(each.id not in records and each.id not in self._proposed for each in every)

    def propose(self, records: Records) -> Sequence[Candidate]:
        if self._made is None:
            bases = self.bases(records)
            if not bases or any(base.id not in records for base in bases):
                return ()
            self._made = self._cross([records[base.id] for base in bases])
        ordered = [each for made in self._made for each in self.order(made, records)]
        if self.at_once is None:
            return ordered
        free = self.at_once - sum(known not in records for known in self._proposed)
        for each in ordered:
            if free > 0 and each.id not in records and each.id not in self._proposed:
                self._proposed[each.id] = each
                free -= 1
        return list(self._proposed.values())

    def _cross(self, bases: Sequence[TrialRecord]) -> list[Sequence[Candidate]]:
        measured = [record for record in bases if record.ok]
        chosen = self.choose(measured) if measured else ()
        return [self.cross(record.candidate, place) for place, record in enumerate(chosen)]
