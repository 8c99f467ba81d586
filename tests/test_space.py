"""The space: equal parameters suggest equal candidates, and every candidate has parameters."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.space import AllHeads, Bits, Ranked, Space, menu

SCORES = np.random.default_rng(0).random((2, 3))
FULL = AttentionChoice("full")
WINDOW = AttentionChoice.of("window", window=16, global_tokens=1)


def space(kind: str, *choices: AttentionChoice) -> Space:
    encoding = {"ranked": Ranked(SCORES), "mask": Bits(2, 3), "off": AllHeads(2, 3)}[kind]
    return Space(encoding, 2, 3, choices or (FULL, WINDOW), SCORES)


every_encoding = pytest.mark.parametrize("kind", ["ranked", "mask", "off"])


@every_encoding
@given(st.integers(0, 10_000))
def test_parameters_of_a_candidate_suggest_it_again(kind: str, seed: int) -> None:
    here = space(kind)
    candidate = here.random(np.random.default_rng(seed))
    assert here.suggest(optuna.trial.FixedTrial(here.params(candidate))) == candidate


@every_encoding
def test_size_is_the_number_of_different_candidates(kind: str) -> None:
    here = space(kind)
    masks = {
        "ranked": [
            HeadMask.ranked(counts, SCORES) for counts in itertools.product(range(4), repeat=2)
        ],
        "mask": [
            HeadMask((bits[:3], bits[3:])) for bits in itertools.product((False, True), repeat=6)
        ],
        "off": [HeadMask.all(2, 3)],
    }[kind]
    choices = itertools.product((FULL, WINDOW), repeat=2)
    every = {Candidate(mask, pair) for mask, pair in itertools.product(masks, choices)}
    assert here.size == len(every)


@every_encoding
def test_planted_candidates_are_in_the_space_with_dense_first(kind: str) -> None:
    here = space(kind)
    planted = here.planted()
    assert planted[0].is_dense
    assert len(set(planted)) == len(planted)
    for candidate in planted:
        assert here.suggest(optuna.trial.FixedTrial(here.params(candidate))) == candidate


def test_smallest_model_and_even_steps_are_planted() -> None:
    planted = space("ranked", FULL).planted(steps=3)
    assert [candidate.heads.total for candidate in planted] == [6, 0, 4, 2]


def test_menu_drops_windows_that_compute_more_scores_than_full() -> None:
    windows = [dict(choice.params)["window"] for choice in menu(["window"], 128)[1:]]
    assert windows == [32, 16]  # the default first; (128 + 64) * (16 + 2 * 63) would be too many
    assert menu(["window"], 16) == (FULL,)
    assert menu(["full"], 512) == (FULL,)


def test_menu_of_a_causal_model_has_only_causal_mechanisms() -> None:
    offered = {choice.name for choice in menu(None, 512, causal=True)}
    assert offered == {"full", "window", "strided", "lsh", "random_features", "linear"}
    with pytest.raises(ValueError, match="attention 'nystrom' cannot be causal"):
        menu(["window", "nystrom"], 512, causal=True)


def test_menu_names_an_unknown_mechanism() -> None:
    with pytest.raises(ValueError, match="Did you mean 'window'"):
        menu(["windo"], 512)
