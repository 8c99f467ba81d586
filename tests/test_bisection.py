"""Where a requirement stops holding is found in few measurements, and nothing is left out."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from paretoformer.search.proposers.bisection import by_bisection

ANSWERS = st.lists(st.sampled_from([None, True, False]), max_size=30)


@given(ANSWERS)
def test_every_place_comes_once_and_what_was_measured_last(holds: list[bool | None]) -> None:
    order = by_bisection(holds)

    assert sorted(order) == list(range(len(holds)))
    known = [holds[place] is not None for place in order]
    assert known == sorted(known)


@given(st.integers(1, 60), st.data())
def test_the_end_of_what_is_allowed_is_found_by_halving(count: int, data: st.DataObject) -> None:
    allowed = data.draw(st.integers(0, count))
    holds: list[bool | None] = [None] * count
    for _ in range(math.ceil(math.log2(count + 1))):
        if None in holds:
            place = by_bisection(holds)[0]
            holds[place] = place < allowed

    assert all(holds[place] is True for place in range(allowed)[-1:])
    assert all(holds[place] is False for place in range(allowed, count)[:1])


def test_nothing_known_the_whole_path_is_looked_at_ever_more_closely() -> None:
    assert by_bisection([None] * 7) == [3, 1, 5, 2, 4, 0, 6]


def test_what_is_beside_the_end_comes_nearest_first() -> None:
    holds = [None, None, True, None, None, False, None, None]

    assert by_bisection(holds) == [3, 4, 1, 6, 0, 7, 2, 5]


def test_one_that_fails_below_others_that_hold_is_the_end() -> None:
    """Noise: what loses more happened to satisfy."""
    assert by_bisection([None, False, None, True])[0] == 0
