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

    bases: called until they are there, since they may depend on what was measured.
    choose: of the records of the bases that were measured, the best.
    cross: called with each of the best and its place among them.
    order: called with what `cross` made of one of them, and with the records; puts the most useful
    first.
    at_once: the most that are under way at the same time; None: no limit.
    """

    bases: Callable[[Records], Sequence[Candidate]]
    choose: Callable[[Sequence[TrialRecord]], Sequence[TrialRecord]]
    cross: Callable[[Candidate, int], Sequence[Candidate]]
    order: Callable[[Sequence[Candidate], Records], Sequence[Candidate]] = lambda made, _: made
    at_once: int | None = None
    _made: list[Sequence[Candidate]] | None = field(default=None, init=False)

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        if self._made is None:
            return any(base.id not in records for base in self.bases(records))
        if self.at_once is None:
            return False
        every = (candidate for made in self._made for candidate in made)
        return any(each.id not in records and each not in under_way for each in every)

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        if self._made is None:
            bases = self.bases(records)
            if not bases or any(base.id not in records for base in bases):
                return ()
            self._made = self._cross([records[base.id] for base in bases])
        if self.at_once is not None:
            made = {candidate for some in self._made for candidate in some}
            if len(made.intersection(under_way)) >= self.at_once:
                return ()
        return [candidate for made in self._made for candidate in self.order(made, records)]

    def is_left(self, records: Records) -> bool:
        """Whether anything that it proposes was not measured yet."""
        if self._made is None:
            return True
        return any(each.id not in records for made in self._made for each in made)

    def _cross(self, bases: Sequence[TrialRecord]) -> list[Sequence[Candidate]]:
        measured = [record for record in bases if record.ok]
        chosen = self.choose(measured) if measured else ()
        return [self.cross(record.candidate, place) for place, record in enumerate(chosen)]
