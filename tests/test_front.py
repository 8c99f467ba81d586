"""The front, against its brute-force definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paretoformer.search.records.dominance import (
    AT_ONCE,
    clearly_dominated,
    hypervolume,
    nondominated,
)

tables = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.just(3)),
    elements=st.sampled_from([0.0, 1.0, 2.0, 3.5, -1.0, np.inf, -np.inf, np.nan]),
)
DIRECTIONS = ("maximize", "minimize", "minimize")


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    signs = np.array([-1.0, 1.0, 1.0])
    one, other = one * signs, other * signs
    return bool((one <= other).all() and (one < other).any())


@given(tables)
def test_front_equals_its_definition(values: np.ndarray) -> None:
    whole = [not np.isnan(row).any() for row in values]
    expected = [
        ok
        and not any(
            good and dominates(other, row) for good, other in zip(whole, values, strict=True)
        )
        for ok, row in zip(whole, values, strict=True)
    ]
    assert nondominated(values, DIRECTIONS).tolist() == expected


def test_equal_points_are_both_on_the_front() -> None:
    values = np.array([[1.0, 2.0], [1.0, 2.0], [0.5, 3.0]])
    assert nondominated(values, ("maximize", "minimize")).tolist() == [True, True, False]


def test_hypervolume_of_two_boxes() -> None:
    values = np.array([[1.0, 1.0], [2.0, 2.0], [np.nan, 0.0]])
    reference = np.array([0.0, 3.0])
    assert hypervolume(values, ("maximize", "minimize"), reference) == pytest.approx(3.0)


def test_hypervolume_of_nothing_is_zero() -> None:
    assert hypervolume(np.empty((0, 2)), ("minimize", "minimize"), np.ones(2)) == 0


@given(tables, st.floats(0, 2))
def test_clear_dominance_equals_its_definition(values: np.ndarray, reach: float) -> None:
    whole = [not np.isnan(row).any() for row in values]
    signs = np.array([-1.0, 1.0, 1.0])

    def clearly(one: np.ndarray, other: np.ndarray) -> bool:
        apart = one * signs + reach < other * signs - reach
        return dominates(one, other) and bool(apart.any())

    expected = [
        not ok
        or any(good and clearly(other, row) for good, other in zip(whole, values, strict=True))
        for ok, row in zip(whole, values, strict=True)
    ]
    found = clearly_dominated(values, values - reach, values + reach, DIRECTIONS)
    assert found.tolist() == expected


@given(st.integers(0, 300))
def test_front_of_many_points_does_not_depend_on_how_many_are_compared_at_once(
    seed: int,
) -> None:
    values = np.random.default_rng(seed).integers(0, 9, (AT_ONCE + 40, 3)).astype(float)
    found = clearly_dominated(values, values, values, DIRECTIONS)
    assert (found == ~nondominated(values, DIRECTIONS)).all()


@given(tables)
def test_exact_values_dominate_clearly(values: np.ndarray) -> None:
    found = clearly_dominated(values, values, values, DIRECTIONS)
    assert (found == ~nondominated(values, DIRECTIONS)).all()
