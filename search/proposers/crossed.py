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

    That is made once: it depends on the records of the bases alone. In which order it is proposed
    may depend on more.

    bases: asked for until they are there, since they may depend on what was measured.
    choose: of the records of the bases that were measured, the best.
    cross: called with each of the best and its place among them.
    order: called with what that made of one of them and the records: the most useful first.
    at_once: proposed before any of them was measured; the next ones one by one. None: all.
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
        left = (each.id for made in self._made for each in made if each.id not in records)
        return self.at_once is not None and any(id not in self._proposed for id in left)

    def propose(self, records: Records) -> Sequence[Candidate]:
        if self._made is None:
            bases = self.bases(records)
            if not bases or any(base.id not in records for base in bases):
                return ()
            self._made = self._cross([records[base.id] for base in bases])
        ordered = [each for made in self._made for each in self.order(made, records)]
        if self.at_once is None:
            return ordered
        open_ones = sum(id not in records for id in self._proposed)
        left = [each for each in ordered if each.id not in {*records, *self._proposed}]
        self._proposed |= {each.id: each for each in left[: max(0, self.at_once - open_ones)]}
        return list(self._proposed.values())

    def _cross(self, bases: Sequence[TrialRecord]) -> list[Sequence[Candidate]]:
        measured = [record for record in bases if record.ok]
        chosen = self.choose(measured) if measured else ()
        return [self.cross(record.candidate, place) for place, record in enumerate(chosen)]
