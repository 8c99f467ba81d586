"""Candidates and head masks: equal things have equal ids, and text brings them back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.candidate import VERSION

shapes = st.tuples(st.integers(1, 5), st.integers(1, 6))


@st.composite
def masks(draw: st.DrawFn) -> HeadMask:
    layers, heads = draw(shapes)
    row = st.lists(st.booleans(), min_size=heads, max_size=heads).map(tuple)
    return HeadMask(tuple(draw(st.lists(row, min_size=layers, max_size=layers))))


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    mask = draw(masks())
    choices = st.sampled_from(
        [AttentionChoice("full"), AttentionChoice.of("window", window=4, global_tokens=1)]
    )
    layers = mask.layers
    return Candidate(mask, tuple(draw(st.lists(choices, min_size=layers, max_size=layers))))


@given(candidates())
def test_json_brings_a_candidate_back(candidate: Candidate) -> None:
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert hash(again) == hash(candidate)
    assert again.id == candidate.id


@given(candidates(), candidates())
def test_ids_are_equal_exactly_when_candidates_are(one: Candidate, other: Candidate) -> None:
    assert (one.id == other.id) == (one == other)


def test_order_of_parameters_does_not_make_another_candidate() -> None:
    mask = HeadMask.all(1, 2)
    one = Candidate(mask, (AttentionChoice.of("window", window=4, global_tokens=1),))
    other = Candidate(mask, (AttentionChoice.of("window", global_tokens=1, window=4),))
    assert one == other
    assert one.id == other.id


def test_layer_without_heads_has_only_one_candidate() -> None:
    mask = HeadMask(((False, False), (True, False)))
    window = AttentionChoice.of("window", window=4, global_tokens=1)
    assert Candidate(mask, (window, window)) == Candidate(mask, (AttentionChoice("full"), window))


def test_id_of_a_known_candidate_never_changes() -> None:
    window = AttentionChoice.of("window", window=32, global_tokens=1)
    candidate = Candidate(HeadMask(((True, False), (True, True))), (window, window))
    assert candidate.id == "d48de11fa917ba88"
    assert Candidate.dense(2, 2).id == "41650ab5f87b8664"


def test_candidate_of_a_newer_version_is_refused_with_both_versions() -> None:
    data = json.loads(Candidate.dense(1, 1).to_json()) | {"version": 9}
    with pytest.raises(
        ValueError, match=f"format version 9, and this paretoformer reads version {VERSION}"
    ):
        Candidate.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 1}', '{"version": 1, "heads": 3}'])
def test_other_text_is_no_candidate(text: str) -> None:
    with pytest.raises(ValueError, match="not a candidate"):
        Candidate.from_json(text)


def text_with(**keys: object) -> str:
    """A candidate of version 1 with further keys."""
    attention = [{"name": "full", "params": {}}]
    return json.dumps({"version": 1, "heads": ["11"], "attention": attention, **keys})


def test_unknown_key_is_refused_by_name() -> None:
    """Else a model would be rebuilt that is not the one that was measured."""
    assert Candidate.from_json(text_with()).is_dense
    with pytest.raises(ValueError, match="a candidate of version 1 has no 'precision'"):
        Candidate.from_json(text_with(precision="int8"))


@pytest.mark.parametrize(
    ("key", "value"), [("runtime", "onnxruntime:int8"), ("layers", "1"), ("feed_forward", [0.5])]
)
def test_version_1_has_no_axis_that_came_later(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"a candidate of version 1 has no '{key}'"):
        Candidate.from_json(text_with(**{key: value}))


def test_unknown_axis_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown axis 'precision'"):
        Candidate(HeadMask.all(1, 2), precision="int8")


@given(candidates())
def test_candidate_travels_to_a_worker_as_it_is(candidate: Candidate) -> None:
    again = pickle.loads(pickle.dumps(candidate))
    assert again == candidate
    assert again.id == candidate.id
    assert {again: 1}[candidate] == 1


@given(candidates(), candidates())
def test_equal_candidates_have_equal_hashes(one: Candidate, other: Candidate) -> None:
    same = Candidate(one.heads, one.attention)
    assert hash(same) == hash(one)
    assert len({one, same, other}) == len({one.id, other.id})


def test_candidate_is_frozen() -> None:
    candidate = Candidate.dense(1, 2)
    assert candidate.id  # computed now, and kept
    for name in ("values", "shape", "id", "heads", "attention"):
        with pytest.raises(AttributeError):
            setattr(candidate, name, None)
    with pytest.raises(TypeError, match="does not support item assignment"):
        candidate.values["heads"] = HeadMask.none(1, 2)  # type: ignore[index]


def test_mask_needs_layers_of_one_width() -> None:
    with pytest.raises(ValueError, match="one common number of heads"):
        HeadMask(((True,), (True, False)))


def test_candidate_needs_one_attention_a_layer() -> None:
    with pytest.raises(ValueError, match="one attention for each of the 2 layers, but got 1"):
        Candidate(HeadMask.all(2, 1), (AttentionChoice("full"),))


@given(masks(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_most_important_is_ranked_by_its_own_counts(
    mask: HeadMask, count: int, rng: object
) -> None:
    """So a planted global mask is always a point of the ranked encoding."""
    scores = np.random.default_rng(count).random((mask.layers, mask.heads))
    top = HeadMask.most_important(count, scores)
    assert top.total == min(count, mask.layers * mask.heads)
    assert HeadMask.ranked(top.counts, scores) == top


def test_ranked_keeps_the_highest_scores_and_breaks_ties_by_index() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]])
    assert HeadMask.ranked((2, 1), scores).kept == ((False, True, True), (True, False, False))
