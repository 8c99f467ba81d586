"""The contract of proposers, which say what to try next; the loop does not know why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from paretoformer.search.records.record import Records
from paretoformer.spaces.candidate import Candidate

__all__ = ["Proposer", "Records"]


class Proposer(ABC):
    """Asked whenever there is room for another candidate.

    records: what was measured so far. under_way: what is being measured.
    """

    @abstractmethod
    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        """Candidates to measure before any of the sampler's, the most useful first.

        The loop takes the first one that is neither measured nor under way.
        """

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        """Whether it will propose more once what is under way was measured.

        Until then the sampler is not asked, which knows less.
        """
        return False
