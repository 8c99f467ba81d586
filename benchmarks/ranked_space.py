"""The search space of the loop and timing benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from paretoformer.spaces.attention.menu import menu
from paretoformer.spaces.axes.attention import ChoicePerLayer
from paretoformer.spaces.axes.domain import Domain
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.heads import RankedHeads
from paretoformer.spaces.space import Space


def space_of(layers: int, heads: int, length: int) -> Space:
    """Heads ranked by random scores, and every mechanism that saves computation at that length."""
    scores = np.random.default_rng(0).random((layers, heads))
    domains: dict[str, Domain[Any]] = {
        "heads": RankedHeads(scores),
        "attention": ChoicePerLayer(menu(None, length), layers),
    }
    return Space(Shape(layers, heads), domains)
