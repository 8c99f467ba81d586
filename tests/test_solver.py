"""The solver finds what trying everything finds; the table and the latencies it rests on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.search.planning.block_table import KnownRows, Row, TooLate, block_table
from paretoformer.search.planning.knapsack import BUCKETS, BlockOptions, KnapsackProblem, Solution
from paretoformer.search.planning.latency_model import LatencyModel
from paretoformer.search.planning.learn import (
    MeasuredSolution,
    best_screened,
    coefficients,
    learn,
)
from paretoformer.search.planning.screen import Screen
from paretoformer.search.planning.screener import Screener
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes.attention_options import AttentionBlock
from paretoformer.spaces.axes.block_options import normalised
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.feed_forward import NeuronBlock
from tests.test_cutting import tiny

LAYERS, HEADS, NEURONS = 2, 3, 96
FULL = AttentionChoice("full")
WINDOW = AttentionChoice.of("window", window=3, global_tokens=0)
DENSE = Candidate.dense(LAYERS, HEADS)


def problem(seed: int, *, removable: bool = True) -> KnapsackProblem:
    """Random damage that grows, and costs that shrink, as more is cut."""
    rng = np.random.default_rng(seed)
    attention = AttentionBlock((FULL, WINDOW), normalised(rng.random((LAYERS, HEADS))))
    neurons = NeuronBlock.of(rng.random((LAYERS, NEURONS)))
    options_of = []
    for block in (attention, neurons):
        options = block.size
        damage = rng.random((LAYERS, options))
        damage[:, block.uncut] = 0
        costs = np.round(rng.random(options), 2)
        costs[block.uncut] = 1.5
        if block is attention:  # without heads all mechanisms are one
            damage[:, HEADS + 1], costs[HEADS + 1] = damage[:, 0], costs[0]
        options_of.append(BlockOptions(block, damage, costs))
    removed = 2 * rng.random(LAYERS) if removable else np.full(LAYERS, np.inf)
    return KnapsackProblem(
        DENSE, tuple(options_of), 0.25, removed, rng.uniform(0.5, 2, (LAYERS, 3))
    )


def everything(here: KnapsackProblem) -> Iterator[tuple[float, int]]:
    """(nats, steps) of every combination."""
    weights = here.coefficients
    assert weights is not None
    layers = []
    for layer in range(LAYERS):
        found = [(weights[layer, 2] * here.removed[layer], 0)]
        for options in itertools.product(*(range(len(k.costs)) for k in here.blocks)):
            nats = sum(
                weights[layer, i] * k.damage[layer, o]
                for i, (k, o) in enumerate(zip(here.blocks, options, strict=True))
            )
            time = sum(here.steps(k.costs[o]) for k, o in zip(here.blocks, options, strict=True))
            found.append((nats, time + here.steps(here.layer)))
        layers.append(found)
    for each in itertools.product(*layers):
        yield sum(nats for nats, _ in each), sum(steps for _, steps in each)


@given(st.integers(0, 1000), st.integers(0, BUCKETS), st.booleans())
def test_no_combination_is_better_within_its_budget(seed: int, budget: int, gone: bool) -> None:
    here = problem(seed, removable=gone)
    solved = here.solve()
    fit = [nats for nats, steps in everything(here) if steps <= budget]
    assert solved.best[budget] == pytest.approx(min(fit, default=np.inf))


@given(st.integers(0, 1000))
def test_solution_is_what_its_candidate_is_predicted_to_be(seed: int) -> None:
    here = problem(seed)
    for each in here.solve().along(12):
        assert here.nats(each.candidate) == pytest.approx(each.nats)
        parts = here.parts(each.candidate)
        assert parts is not None
        assert parts.sum() == pytest.approx(each.milliseconds)
        assert any(each.candidate.layers)
        assert not each.candidate.is_dense


@given(st.integers(0, 1000))
def test_problem_survives_its_json(seed: int) -> None:
    here = replace(problem(seed, removable=bool(seed % 2)), rest=0.5, last=0.25)
    names = ("attention", "feed_forward")
    blocks = {name: kind.block for name, kind in zip(names, here.blocks, strict=True)}
    again = KnapsackProblem.from_dict(here.to_dict(), Shape(LAYERS, HEADS), blocks)
    assert again.to_dict() == here.to_dict()
    assert (again.rest, again.last) == (0.5, 0.25)
    np.testing.assert_array_equal(again.solve().best, here.solve().best)
    older = {k: v for k, v in here.to_dict().items() if k not in ("rest", "last")}
    of_older = KnapsackProblem.from_dict(older, Shape(LAYERS, HEADS), blocks)
    assert (of_older.rest, of_older.last) == (None, 1.0)


def test_what_the_problem_does_not_know_is_not_predicted() -> None:
    here = problem(0)
    other = DENSE.replaced(attention=(AttentionChoice.of("linear"),) * LAYERS)
    assert np.isnan(here.nats(other))
    assert here.parts(other) is None


def test_coefficients_are_those_that_explain_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 4, (LAYERS, 3))
    found = []
    for _ in range(60):
        damage = rng.random((LAYERS, 3))
        solution = Solution(DENSE, 0.0, 0.0, damage)
        found.append(MeasuredSolution(solution, float((true * damage).sum())))
    learned = coefficients(found, true.shape)
    for each in found:
        assert float((learned * each.solution.damage).sum()) == pytest.approx(each.nats, rel=0.1)


def screened_by(truth: KnapsackProblem) -> Callable[[Sequence[Candidate]], Any]:
    """In another order than it was asked for."""
    return lambda candidates: [(each, truth.nats(each)) for each in reversed(candidates)]


def test_search_learns_which_layer_matters() -> None:
    """Whole candidates lose five times as much in the first layer as its blocks alone say."""
    here = replace(problem(3), coefficients=None)
    true = np.ones((LAYERS, 3))
    true[0] = 5.0
    really = replace(here, coefficients=true)
    learned, found = learn(here, screened_by(really), rounds=6, count=8)
    assert learned.coefficients is not None
    rng = np.random.default_rng(0)
    random = []
    for _ in range(50):
        values: dict[str, Any] = {}
        for kind in here.blocks:
            values |= kind.block.values(rng.integers(0, len(kind.costs), LAYERS).tolist())
        random.append(DENSE.replaced(**values))

    def misses(model: KnapsackProblem) -> float:
        return float(np.mean([abs(np.log(model.nats(c) / really.nats(c))) for c in random]))

    assert misses(learned) < 0.5 * misses(here)
    assert {each.solution.candidate for each in found} >= set(best_screened(found, 5))


def test_front_of_what_was_screened_has_none_that_is_slower_and_worse() -> None:
    _, found = learn(problem(5), screened_by(problem(5)), rounds=3, count=8)
    measured = {each.solution.candidate: each for each in found}
    best = [measured[each] for each in best_screened(found, 4)]
    assert 1 < len(best) <= 4
    times = [each.solution.milliseconds for each in best]
    assert times == sorted(times, reverse=True)
    assert [each.nats for each in best] == sorted(each.nats for each in best)


# Latency


def test_first_round_is_cut_short_when_time_is_over_and_covers_all_budgets() -> None:
    here = problem(1)
    _, every = learn(here, screened_by(here), rounds=1, count=40)
    _, found = learn(here, screened_by(here), rounds=3, count=40, is_late=lambda: True)
    assert len(found) == 4 < len(every)
    ranks = sorted(measured.solution.milliseconds for measured in every)
    places = sorted(ranks.index(measured.solution.milliseconds) for measured in found)
    assert places[0] < len(every) / 4
    assert places[-1] > len(every) / 2


def test_latency_of_a_runtime_is_learned_from_few_candidates() -> None:
    here = problem(1)
    candidates = [each.candidate for each in here.solve().along(20)]
    truth = np.array([0.1, 0.5, 0.4])  # attention is made much faster than the rest

    def really(candidate: Candidate) -> float:
        parts = here.parts(candidate)
        assert parts is not None
        return 0.3 + float(truth @ parts)

    dense = really(DENSE)
    none = LatencyModel.fitted(here, here.whole + 1.0, (DENSE, dense), [])
    assert none.predict(DENSE) == pytest.approx(dense, rel=0.01)
    some = LatencyModel.fitted(
        here, here.whole + 1.0, (DENSE, dense), [(each, really(each)) for each in candidates[::3]]
    )
    errors = [abs(some.predict(each) / really(each) - 1) for each in candidates]
    before = [abs(none.predict(each) / really(each) - 1) for each in candidates]
    assert np.median(errors) < 0.05
    assert np.median(errors) < np.median(before)


def test_parts_that_are_timed_by_themselves_give_proportions() -> None:
    """Their sum is less than the model takes, but the rest of the model is not what is left."""
    here = replace(problem(1), rest=0.5)
    free = DENSE.replaced(readout="first")
    halved = DENSE.replaced(layers=(True,) + (False,) * (LAYERS - 1))
    model = LatencyModel.fitted(here, 100.0, (free, 10.0), [])
    assert model.predict(free) == pytest.approx(10.0)
    share = (0.5 + here.whole / LAYERS) / (0.5 + here.whole)
    assert model.predict(halved) == pytest.approx(10.0 * share)


def test_last_layer_that_reads_some_tokens_costs_its_share() -> None:
    here = replace(problem(1), last=0.25)
    layers = (True, True) + (False,) * (LAYERS - 2)
    cut = DENSE.replaced(layers=layers)
    of_two, of_one_and_a_quarter = here.parts(cut), here.parts(cut.replaced(readout="first"))
    assert of_two is not None
    assert of_one_and_a_quarter == pytest.approx(of_two * 1.25 / 2)


def test_unknown_candidates_teach_nothing_and_are_not_predicted() -> None:
    here = problem(1)
    other = DENSE.replaced(attention=(AttentionChoice.of("linear"),) * LAYERS)
    plain = LatencyModel.fitted(here, 10.0, (DENSE, 5.0), [])
    told = LatencyModel.fitted(here, 10.0, (DENSE, 5.0), [(other, 1.0)])
    assert (told.constant, *told.factors) == (plain.constant, *plain.factors)
    assert np.isnan(told.predict(other))


# The table


@dataclass
class Formula(Screen):
    """Nats by counting what is gone; counts its calls."""

    calls: int = 0

    def _nats(self, candidate: Candidate) -> float:
        self.calls += 1
        heads = candidate.heads.layers * candidate.heads.heads - candidate.heads.total
        neurons = 1 - candidate.feed_forward.total_share
        swapped = sum(each != FULL for each in candidate.attention)
        return 0.01 * heads + neurons + 0.1 * swapped + 0.5 * (not all(candidate.layers))


def blocks() -> Mapping[str, Any]:
    names = ("attention", "feed_forward")
    return {n: (k.block, k.costs) for n, k in zip(names, problem(0).blocks, strict=True)}


class Model:
    """What the table asks of a model: its shape."""

    def __init__(self) -> None:
        self.config = tiny("bert").config
        self.config.num_hidden_layers, self.config.num_attention_heads = LAYERS, HEADS


def measured(formula: Formula, known: KnownRows) -> Any:
    return block_table(Screener(formula), Model(), blocks(), True, known)  # type: ignore[arg-type]


def test_table_has_every_option_and_measures_none_twice(tmp_path: Path) -> None:
    formula, file = Formula(), tmp_path / "table.parquet"
    table = measured(formula, KnownRows(file, "a"))
    for name, (block, costs) in blocks().items():
        nats = table.nats[name]
        assert nats.shape == (LAYERS, block.size)
        assert not nats[:, block.uncut].any()
        for option in block.measured(costs):
            one = DENSE.replaced(**block.values([option, block.uncut]))
            assert nats[0, option] == pytest.approx(Formula().of(one))
    assert list(table.removed) == [0.5] * LAYERS
    first = formula.calls
    again = measured(formula, KnownRows(file, "a"))
    assert formula.calls == first
    for name, nats in table.nats.items():
        np.testing.assert_array_equal(again.nats[name], nats)
    measured(formula, KnownRows(file, "of another model"))
    assert formula.calls == 2 * first


def test_table_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    known = KnownRows(file, "a")
    measured(Formula(), known)
    kept = KnownRows(file, "a")
    some: Sequence[Row] = [Row(0, "attention", 0), Row(1, "layer", 0)]
    assert all(row in kept for row in some)
    half = KnownRows(tmp_path / "half.parquet", "a")
    half.add(some[0], 0.125)
    half.write()
    formula = Formula()
    table = measured(formula, KnownRows(tmp_path / "half.parquet", "a"))
    assert formula.calls == known.new - 1
    assert table.nats["attention"][0, 0] == 0.125


def test_damaged_table_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    file.write_text("no parquet")
    formula = Formula()
    measured(formula, KnownRows(file, "a"))
    assert formula.calls > 0
    assert Row(0, "attention", 0) in KnownRows(file, "a")


def test_larger_blocks_never_damage_more() -> None:
    block, costs = blocks()["feed_forward"]
    rng = np.random.default_rng(0)
    nats = block.filled({option: rng.random(LAYERS) for option in block.measured(costs)})
    assert (np.diff(nats, axis=1) <= 1e-12).all()
    assert not nats[:, -1].any()


def test_slow_mechanisms_are_not_measured_and_not_chosen() -> None:
    block, costs = blocks()["attention"]
    slow = costs.copy()
    slow[-1] = 2.0  # the other mechanism, with all heads
    assert block.mechanisms(costs) == (FULL, WINDOW)
    assert block.mechanisms(slow) == (FULL,)
    nats = block.filled({option: np.ones(LAYERS) for option in block.measured(slow)})
    assert np.isfinite(nats[:, : HEADS + 1]).all()
    assert np.isinf(nats[:, HEADS + 1 :]).all()


def test_options_are_read_back_from_values() -> None:
    for block, _ in blocks().values():
        every = range(block.size)
        for pair in itertools.product(every, repeat=LAYERS):
            candidate = DENSE.replaced(**block.values(pair))
            again = DENSE.replaced(**block.values(block.options(candidate.values)))
            assert again == candidate


def test_heads_are_counted_where_a_layer_is_gone() -> None:
    here = problem(0)
    gone = DENSE.replaced(layers=(True, False), heads=HeadMask(((True,) * 3, (False,) * 3)))
    whole = here.parts(DENSE)
    parts = here.parts(gone)
    assert whole is not None
    assert parts is not None
    np.testing.assert_allclose(parts, whole / 2)


def test_what_cannot_be_measured_is_never_chosen(tmp_path: Path) -> None:
    class Failing(Formula):
        def _nats(self, candidate: Candidate) -> float:
            if not candidate.heads.counts[0]:
                raise torch.linalg.LinAlgError("singular")
            return (
                float("nan") if candidate.feed_forward.width(1) == 0 else super()._nats(candidate)
            )

    table = measured(Failing(), KnownRows(tmp_path / "table.parquet", "a"))
    assert table.nats["attention"][0, 0] > 100
    assert table.nats["feed_forward"][1, 0] > 100
    assert np.isfinite(table.nats["feed_forward"]).all()


def test_table_is_given_up_when_time_is_over_and_keeps_what_it_has(tmp_path: Path) -> None:
    file, calls = tmp_path / "table.parquet", iter([False] * 3 + [True] * 99)
    with pytest.raises(TooLate):
        block_table(
            Screener(Formula()), Model(), blocks(), True, KnownRows(file, "a"),
            is_late=lambda: next(calls),
        )  # type: ignore[arg-type]  # fmt: skip
    formula = Formula()
    known = KnownRows(file, "a")
    measured(formula, known)
    assert formula.calls == known.new == len(known) - 3


def test_layers_that_time_left_out_must_stay(tmp_path: Path) -> None:
    """Four candidates are the first option of each block, and come first: they take less time."""
    known = KnownRows(tmp_path / "table.parquet", "a")
    table = block_table(
        Screener(Formula()), Model(), blocks(), True, known, is_late=lambda: known.new >= 5
    )  # type: ignore[arg-type]
    assert np.isfinite(table.removed).tolist() == [True, False]


def test_layers_that_can_best_do_without_their_blocks_are_tried_first(tmp_path: Path) -> None:
    class FirstMatters(Formula):
        def _nats(self, candidate: Candidate) -> float:
            return super()._nats(candidate) + (candidate.heads.counts[0] < HEADS)

    known = KnownRows(tmp_path / "table.parquet", "a")
    table = block_table(
        Screener(FirstMatters()), Model(), blocks(), True, known, is_late=lambda: known.new >= 5
    )  # type: ignore[arg-type]
    assert np.isfinite(table.removed).tolist() == [False, True]


def test_options_that_time_left_out_are_interpolated(tmp_path: Path) -> None:
    """The first option of each block and removed layers take 6 of the candidates."""
    known = KnownRows(tmp_path / "table.parquet", "a")
    table = block_table(
        Screener(Formula()), Model(), blocks(), True, known, is_late=lambda: known.new >= 6
    )  # type: ignore[arg-type]
    assert known.new == 6
    for name in ("attention", "feed_forward"):
        cuts = table.nats[name][:, : blocks()[name][0].uncut + 1]
        assert np.isfinite(cuts).all()
        assert (np.diff(cuts, axis=1) <= 1e-12).all()
    assert np.isinf(table.nats["attention"][:, HEADS + 1 :]).all()  # mechanisms come last


def test_block_without_options_needs_no_time(tmp_path: Path) -> None:
    found = {**blocks()}
    block, costs = found["attention"]
    slow = np.append(costs[:-1], 9.0)  # its mechanism is slower than full attention
    found["attention"] = replace(block, prunes=False), slow
    assert not found["attention"][0].measured(slow)
    known = KnownRows(tmp_path / "table.parquet", "a")
    table = block_table(Screener(Formula()), Model(), found, True, known)  # type: ignore[arg-type]
    assert np.isfinite(table.nats["feed_forward"]).all()


def test_table_of_an_unwritable_cache_is_as_good(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    table = measured(Formula(), KnownRows(tmp_path / "file" / "table.parquet", "a"))
    assert np.isfinite(table.nats["attention"]).all()


def test_problem_of_another_grid_is_refused() -> None:
    here = problem(0)
    data = here.to_dict()
    data["kinds"][1]["damage"] = [row[:-1] for row in data["kinds"][1]["damage"]]
    names = ("attention", "feed_forward")
    of = {name: kind.block for name, kind in zip(names, here.blocks, strict=True)}
    with pytest.raises(ValueError, match="options"):
        KnapsackProblem.from_dict(data, Shape(LAYERS, HEADS), of)
