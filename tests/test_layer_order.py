"""The order in which layers go: lazily found, as if each were tried at every step."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.spaces.axes import layers as axis


def found_with(damage: Any, layers: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """The order, and how many sets of layers were tried."""
    tried = list[tuple[int, ...]]()

    def missed(context: Any, batches: Any, dense: Any, removed: Sequence[int]) -> float:
        tried.append(tuple(removed))
        return float(damage(removed))

    monkeypatch.setattr(axis, "_missed", missed)
    steps = list[tuple[int, int]]()
    context: Any = SimpleNamespace(
        batches=lambda examples: [],
        shape=SimpleNamespace(layers=layers),
        progress=lambda what, done, total: steps.append((done, total)),
    )
    order = axis.removal_order(context)
    assert steps == [(done + 1, len(steps)) for done in range(len(steps))]
    return order, len(tried)


def greedy(damage: Any, layers: int) -> list[int]:
    """Every layer is tried at every step."""
    order, left = list[int](), list(range(layers))
    for _ in range(max(1, layers // 2)):
        least = min(left, key=lambda layer: damage([*order, layer]))
        left.remove(least)
        order.append(least)
    return order


@given(seed=st.integers(0, 10**6), layers=st.integers(2, 14))
def test_lazy_order_is_the_greedy_one_where_removals_add_to_each_other(
    seed: int, layers: int
) -> None:
    """Damage alone, and more for each pair that is gone: no layer is missed less later."""
    rng = np.random.default_rng(seed)
    alone, pairs = rng.random(layers), rng.random((layers, layers)) * 0.3

    def damage(removed: Sequence[int]) -> float:
        return float(alone[list(removed)].sum() + pairs[np.ix_(removed, removed)].sum())

    with pytest.MonkeyPatch.context() as patch:
        order, _ = found_with(damage, layers, patch)
    assert order[: max(1, layers // 2)] == greedy(damage, layers)
    assert len(order) == layers - 1


def test_most_layers_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = 1.3 ** np.arange(30)
    order, tried = found_with(lambda removed: weights[list(removed)].sum(), 30, monkeypatch)
    assert order == list(range(29))
    assert tried == 30 + 14  # in place of 30 + 29 + ... + 16


def test_single_layer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_with(lambda removed: 0.0, 1, monkeypatch)[0] == []
