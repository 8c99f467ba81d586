"""What every proposer promises: it says what to try next; the loop does not know why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from paretoformer.search.records.record import Records
from paretoformer.spaces.candidate import Candidate

__all__ = ["Proposer", "Records"]


class Proposer(ABC):
    """Asked again and again; a candidate that was proposed once is not tried twice."""

    @abstractmethod
    def propose(self, records: Records) -> Sequence[Candidate]:
        """Candidates to measure before any that the sampler proposes, the most useful first."""

    def waits(self, records: Records) -> bool:
        """Whether it will propose more once what it proposed was measured.

        Until then nothing is asked of the sampler, which knows less.
        """
        return False
