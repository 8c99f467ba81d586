"""Proposer `Planted`: candidates that every search tries first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.spaces.candidate import Candidate


@dataclass(frozen=True)
class Planted(Proposer):
    candidates: tuple[Candidate, ...]

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        return self.candidates
