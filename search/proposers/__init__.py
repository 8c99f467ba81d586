"""Proposers, one per file: they decide what to try next."""

from paretoformer.search.proposers.assembled import study_proposers
from paretoformer.search.proposers.distilled import is_distilled, to_distil
from paretoformer.search.proposers.planted import Planted
from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.proposers.solved import solved_proposers
from paretoformer.search.proposers.standard import alternatives, standard_proposers
from paretoformer.search.proposers.unseen import Unseen

__all__ = [
    "Planted",
    "Proposer",
    "Records",
    "Unseen",
    "alternatives",
    "is_distilled",
    "solved_proposers",
    "standard_proposers",
    "study_proposers",
    "to_distil",
]
