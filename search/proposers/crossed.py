"""Proposer `Crossed`: the best of some bases, combined with other changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.candidate import Candidate


@dataclass
class Crossed(Proposer):
    """Waits until all `bases` are measured, then proposes what `cross` makes of the best ones.

    The candidates are made once and depend on the bases' records alone; their order may change
    with every record.

    bases: called until all are measured, since they may depend on records.
    choose: the best of the measured bases.
    cross: called with a chosen base and its rank.
    order: sorts the candidates of one base by use, given the records.
    at_once: the most candidates under way at the same time; None: no limit.
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
        return any(c.id not in records and c not in under_way for c in every)

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

    def _cross(self, bases: Sequence[TrialRecord]) -> list[Sequence[Candidate]]:
        measured = [record for record in bases if record.ok]
        chosen = self.choose(measured) if measured else ()
        return [self.cross(record.candidate, place) for place, record in enumerate(chosen)]
