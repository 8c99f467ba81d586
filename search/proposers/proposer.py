"""The contract of proposers: they decide what to try next; the loop does not know why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from paretoformer.search.records.record import Records
from paretoformer.spaces.candidate import Candidate

__all__ = ["Proposer", "Records"]


class Proposer(ABC):
    """Asked whenever there is room for another candidate.

    records: measured so far. under_way: being measured.
    """

    @abstractmethod
    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        """Candidates to try before the sampler's, the most useful first.

        The loop takes the first one that is neither measured nor under way.
        """

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        """Whether it will propose more once the candidates under way are measured.

        Until then the loop does not ask the sampler, which knows less.
        """
        return False
