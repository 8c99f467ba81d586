"""Proposer `Unseen`: a random candidate that was not measured, when a sampler repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

DRAWS = 2000
"""After so many known candidates in a row the space counts as exhausted."""


@dataclass(frozen=True)
class Unseen(Proposer):
    """One candidate, or none when none can be found."""

    space: Space
    seed: int

    def propose(self, records: Records) -> Sequence[Candidate]:
        rng = np.random.default_rng((self.seed, len(records)))
        for _ in range(DRAWS):
            candidate = self.space.random(rng)
            if candidate.id not in records:
                return [candidate]
        return ()
