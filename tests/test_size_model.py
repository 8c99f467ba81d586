"""Sizes are sums over what is kept, and known once a few were measured."""

from __future__ import annotations

import numpy as np
import pytest

from paretoformer.search.planning.size_model import SizeModel, kept
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask

SHARES = np.array([0.5, 0.15, 0.3, 0.05])
WHOLE = 90.0


def drawn(rng: np.random.Generator) -> Candidate:
    heads = HeadMask.ranked(rng.integers(1, 5, 3).tolist(), rng.random((3, 4)))
    neurons = NeuronMask.ranked(rng.integers(1, 17, 3).tolist(), rng.random((3, 16)))
    layers = (True, bool(rng.integers(2)), True)
    return Candidate(heads, feed_forward=neurons, layers=layers)


def size(candidate: Candidate) -> float:
    return WHOLE * float(SHARES @ kept(candidate))


def test_sizes_are_exact_after_some_candidates() -> None:
    rng = np.random.default_rng(0)
    measured = [(each, size(each)) for each in (drawn(rng) for _ in range(12))]
    fitted = SizeModel.fitted(WHOLE, measured)
    for each in (drawn(rng) for _ in range(20)):
        assert fitted.predict(each) == pytest.approx(size(each), rel=0.01)


def test_uncompressed_model_is_known_from_the_start() -> None:
    found = SizeModel.fitted(WHOLE, []).predict(Candidate.dense(3, 4))
    assert found == pytest.approx(WHOLE, rel=1e-3)
