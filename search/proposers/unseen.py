"""Proposer `Unseen`: a random new candidate, for when the sampler repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

DRAWS = 2000
"""After this many known candidates in a row, the space counts as exhausted."""


@dataclass(frozen=True)
class Unseen(Proposer):
    space: Space
    seed: int

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        rng = np.random.default_rng((self.seed, len(records) + len(under_way)))
        known = records.keys() | {candidate.id for candidate in under_way}
        for _ in range(DRAWS):
            candidate = self.space.random(rng)
            if candidate.id not in known:
                return [candidate]
        return ()
