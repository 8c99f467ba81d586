"""The space: equal parameters suggest equal candidates, and every candidate has parameters."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.proposers import alternatives, standard_proposers
from paretoformer.search.proposers.standard import structures
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention.menu import left_out, menu
from paretoformer.spaces.axes import heads
from paretoformer.spaces.axes.attention import ChoicePerLayer
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.heads import HeadBits, RankedHeads
from paretoformer.spaces.space import Space

SCORES = np.random.default_rng(0).random((2, 3))
FULL = AttentionChoice("full")
WINDOW = AttentionChoice.of("window", window=16, global_tokens=1)
OBJECTIVES = [Accuracy(), Latency()]


def space(kind: str, *choices: AttentionChoice) -> Space:
    masks: dict[str, Domain[HeadMask]] = {
        "ranked": RankedHeads(SCORES),
        "mask": HeadBits(SCORES),
        "off": Fixed(HeadMask.all(2, 3)),
    }
    offered = choices or (FULL, WINDOW)
    attention = Fixed((FULL,) * 2) if offered == (FULL,) else ChoicePerLayer(offered, 2)
    forecast = Candidate(HeadMask.all(2, 3), (WINDOW, FULL))
    forecasts = (forecast,) if WINDOW in offered else ()
    return Space(Shape(2, 3), {"heads": masks[kind], "attention": attention}, forecasts)


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


def planted(here: Space) -> list[Candidate]:
    """What every search tries before its sampler proposes anything."""
    return [here.dense, *alternatives(here), *structures(here)]


@every_encoding
def test_planted_candidates_are_in_the_space_with_dense_first(kind: str) -> None:
    here = space(kind)
    every = planted(here)
    assert every[0].is_dense
    assert len(set(every)) == len(every)
    for candidate in every:
        assert here.suggest(optuna.trial.FixedTrial(here.params(candidate))) == candidate


def test_planted_candidates_are_what_the_first_proposers_propose() -> None:
    here = space("ranked")
    first, second, _ = standard_proposers(
        here, OBJECTIVES, [Requirement.parse(Accuracy.requirement)]
    )
    assert first.propose({}, []) == (here.dense, *alternatives(here))
    assert not second.propose({}, [])  # until the dense model was measured
    measured = {
        "accuracy": Measurement.exact(0.9, "fraction"),
        "latency_ms": Measurement.exact(5.0, "ms"),
    }
    record = TrialRecord(0, here.dense, Result(Outcome.OK, measured))
    assert second.propose({here.dense.id: record}, []) == structures(here)


def test_forecasts_are_planted_before_the_starts() -> None:
    here = space("ranked")
    assert structures(here)[0] == here.forecasts[0]


def test_smallest_model_and_even_steps_are_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "STEPS", 3)
    every = planted(space("ranked", FULL))
    assert [candidate.heads.total for candidate in every] == [6, 4, 2, 0]


def test_each_mechanism_is_planted_in_all_layers_at_its_first_setting() -> None:
    wide = AttentionChoice.of("window", window=32, global_tokens=1)
    linear = AttentionChoice("linear")
    here = space("ranked", FULL, WINDOW, wide, linear)
    uniform = [Candidate(HeadMask.all(2, 3), (choice,) * 2) for choice in (WINDOW, linear)]
    kinds = [Candidate(HeadMask.all(2, 3), each) for each in here.domains["attention"].kinds()]
    assert kinds == uniform
    planted_too = replace(here, kinds=tuple(kinds))
    assert set(uniform) <= set(planted(planted_too))
    assert Candidate(HeadMask.all(2, 3), (wide, wide)) not in planted(planted_too)


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


def test_menu_says_what_it_leaves_out_and_why() -> None:
    assert left_out(None, 512) == {}
    reason = "computes no less than full attention at 16 tokens"
    assert left_out(["full", "window"], 16) == {"window": reason}
    assert "cannot be causal" in left_out(None, 512, causal=True)["nystrom"]


def test_menu_names_an_unknown_mechanism() -> None:
    with pytest.raises(ValueError, match="Did you mean 'window'"):
        menu(["windo"], 512)
