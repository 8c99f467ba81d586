"""Proposers, one file each: what to try next."""

from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.proposers.standard import alternatives, standard_proposers
from paretoformer.search.proposers.unseen import Unseen

__all__ = ["Proposer", "Records", "Unseen", "alternatives", "standard_proposers"]
