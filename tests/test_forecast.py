"""Sensitivity and forecast: where a search begins."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.common.progress import silent
from paretoformer.evaluators.common.target import Target
from paretoformer.search.planning import block_costs as block_costs_of
from paretoformer.search.planning.block_costs import block_costs
from paretoformer.search.planning.prediction import Forecast, Priced, forecasts, spread
from paretoformer.search.planning.prepare import prepare
from paretoformer.search.proposers.standard import structures
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention import build as build_mechanism
from paretoformer.spaces.attention.interface import MECHANISM
from paretoformer.spaces.axes.attention_options import AttentionBlock
from paretoformer.spaces.axes.axis import Probe
from paretoformer.spaces.axes.block_options import normalised
from paretoformer.spaces.axes.feed_forward import NeuronBlock
from paretoformer.spaces.axes.sensitivity import OutputProbe, SwapProbe, sensitivity
from paretoformer.spaces.build import build
from paretoformer.spaces.models.families import blocks_of
from tests.test_surgery import inputs, tiny
from tests.tiny import write_study

FULL = AttentionChoice("full")
WINDOW = AttentionChoice.of("window", window=3, global_tokens=0)
EXACT = AttentionChoice.of("window", window=64, global_tokens=0)


def loss(output, labels):
    return torch.nn.functional.cross_entropy(output.logits, labels, reduction="sum")


class Blend(torch.nn.Module):
    """Exact attention of all heads but one, which goes a step towards another mechanism."""

    def __init__(self, choice: AttentionChoice, head: int, step: float) -> None:
        super().__init__()
        self.choice, self.head, self.step = choice, head, step

    def forward(self, query, key, value, **call):
        output = build_mechanism(FULL, query.shape[-1])(query, key, value, **call)
        other = build_mechanism(self.choice, query.shape[-1])(query, key, value, **call)
        output[:, self.head] += self.step * (other - output)[:, self.head]
        return output


def test_swap_is_scored_by_the_slope_of_the_loss_towards_it() -> None:
    model = tiny("bert").double()
    batch = {key: value[:1] for key, value in inputs(model).items()}
    labels = torch.tensor([1])
    probe = SwapProbe([FULL, EXACT, WINDOW], 4)
    found = sensitivity(model, [(batch, labels)], loss, {"attention": probe})
    scored = np.asarray(found["attention"]["swapped"])
    assert scored.shape == (3, 2, 4)
    np.testing.assert_allclose(scored[:2], 0, atol=1e-12)

    def blended(layer: int, head: int, step: float) -> float:
        rebuilt = build(Candidate(HeadMask.all(2, 4), (EXACT, EXACT)), model).model
        setattr(blocks_of(rebuilt)[layer].attention, MECHANISM, Blend(WINDOW, head, step))
        with torch.no_grad():
            return float(loss(rebuilt(**batch), labels))

    slopes = [
        [abs(blended(i, j, 1e-4) - blended(i, j, -1e-4)) / 2e-4 for j in range(4)] for i in range(2)
    ]
    np.testing.assert_allclose(scored[2], slopes, rtol=1e-4)


def test_sensitivity_leaves_the_model_as_it_was() -> None:
    model = tiny("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heads = OutputProbe(lambda block: block.output, 4)
    probes: dict[str, Probe] = {"heads": heads, "attention": SwapProbe([FULL, WINDOW], 4)}
    found = sensitivity(model, [(inputs(model), torch.tensor([0, 1, 1]))], loss, probes)
    assert np.shape(found["heads"]["removed"]) == (2, 4)  # a group of query heads is one
    assert np.shape(found["attention"]["swapped"]) == (2, 2, 4)
    assert model.config._attn_implementation == "sdpa"
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@dataclass(frozen=True)
class Problem:
    """Two layers, three mechanisms, three heads.

    removed: (layers, heads). swapped: (choices, layers, heads). time: (choices, heads + 1).
    """

    removed: np.ndarray
    swapped: np.ndarray
    time: np.ndarray
    choices: tuple[AttentionChoice, ...] = (FULL, EXACT, WINDOW)

    def forecasts(self, *, prune: bool = True) -> list[Forecast]:
        block = AttentionBlock.of(self.choices, self.removed, self.swapped, prune=prune)
        return forecasts(Candidate.dense(2, 3), [Priced(block, self.time.flatten())])

    def predicted(self, candidate: Candidate) -> tuple[float, float]:
        """(damage, milliseconds), head by head."""
        damage = time = 0.0
        norms = np.linalg.norm(self.removed, axis=1)
        for layer, (row, choice) in enumerate(
            zip(candidate.heads.kept, candidate.attention, strict=True)
        ):
            index = self.choices.index(choice)
            for head, keep in enumerate(row):
                effect = (self.swapped[index] if keep else self.removed)[layer, head]
                damage += float(effect / norms[layer])
            time += float(self.time[index, sum(row)])
        return damage, time


def problem(seed: int) -> Problem:
    """Cheaper mechanisms harm more."""
    rng = np.random.default_rng(seed)
    swapped = rng.random((3, 2, 3)) * np.array([0, 0.5, 1])[:, None, None]
    time = np.linspace(0, 1, 4) * np.array([3.0, 2.0, 1.0])[:, None] * rng.uniform(0.8, 1.2, (3, 1))
    return Problem(rng.random((2, 3)), swapped, time)


@given(st.integers(0, 1000))
def test_nothing_is_predicted_better_than_what_was_forecast(seed: int) -> None:
    here = problem(seed)
    every = [
        here.predicted(Candidate(HeadMask.ranked(counts, normalised(here.removed)), pair))
        for counts in itertools.product(range(4), repeat=2)
        for pair in itertools.product(here.choices, repeat=2)
    ]
    found = [here.predicted(each) for each in spread(here.forecasts(), 100)]
    assert found
    for damage, time in found:
        assert not any(d < damage - 1e-9 and t < time - 1e-9 for d, t in every)


@given(st.integers(0, 1000))
def test_forecast_predicts_the_sum_over_heads_and_layers(seed: int) -> None:
    here = problem(seed)
    for each in here.forecasts():
        assert (each.damage, each.milliseconds) == pytest.approx(here.predicted(each.candidate))


def test_forecast_gives_the_number_asked_for_from_slow_to_fast() -> None:
    here = problem(1)
    found = spread(here.forecasts(), 4)
    times = [here.predicted(candidate)[1] for candidate in found]
    assert 2 <= len(found) <= 4
    assert times == sorted(times, reverse=True)
    assert not any(candidate.is_dense or not candidate.heads.total for candidate in found)


def test_forecast_keeps_every_head_where_none_may_go() -> None:
    found = spread(problem(2).forecasts(prune=False), 100)
    assert found
    assert {candidate.heads.total for candidate in found} == {6}


def subject(tmp_path: Path) -> Subject:
    return load_subject(load_spec(write_study(tmp_path)))


def test_block_costs_are_those_of_the_attention_alone(tmp_path: Path) -> None:
    here = subject(tmp_path)
    choices = (FULL, WINDOW)
    block = AttentionBlock.of(choices, np.ones((2, 4)), np.zeros((2, 2, 4)))
    costs = block_costs(here.model, here.workload, here.target, [block]).blocks[0]
    costs = costs.reshape(len(choices), 5)
    assert not costs[:, 0].any()
    assert (costs >= 0).all()
    assert costs.max() > 0


def test_costs_of_a_forward_are_those_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = subject(tmp_path)
    heads = AttentionBlock.of((FULL,), np.ones((2, 4)), np.zeros((1, 2, 4)))
    neurons = NeuronBlock.of(np.ones((2, 64)))
    named = {("rest", 0): 0.5, ("last", 0): 8.0, ("last", 1): 2.0}

    def times(calls: dict[Any, Callable[[], Any]], *_: Any) -> dict[Any, float]:
        """Four milliseconds of heads, three of neurons, one of what is left."""
        blocks = [(heads, 4.0), (neurons, 3.0)]
        found = dict.fromkeys(calls, 0.0)
        for key in calls:
            if key in named:
                found[key] = named[key]
            else:
                block, whole = blocks[key[0]]
                found[key] = 8.0 - whole * (1 - key[1] / block.uncut)
        return found

    monkeypatch.setattr(block_costs_of, "_usual_times", times)
    dense = Candidate.dense(2, 4)
    arguments: Any = (here.model, here.workload, here.target, [heads, neurons])
    found = block_costs(*arguments, dense.replaced(readout="first"))
    assert [each.max() for each in found.blocks] == pytest.approx([4.0, 3.0])
    assert (found.layer, found.rest, found.last) == pytest.approx((1.0, 0.5, 0.25))
    assert block_costs(*arguments, dense).last == 1.0


def test_layer_of_a_language_model_is_timed_without_its_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown = []
    monkeypatch.setattr(transformers.Cache, "update", lambda *_, **__: grown.append(1))
    for family in ("gpt2", "llama"):
        batch = {"input_ids": torch.randint(4, 90, (2, 8))}
        call = block_costs_of._layer(0, tiny(family, "CausalLM"), Candidate.dense(2, 4), batch)
        with torch.inference_mode():
            call()
        assert not grown


def test_rest_of_a_model_is_timed_without_its_layers(tmp_path: Path) -> None:
    here = subject(tmp_path)
    batch = here.workload.timing_batch(here.target)
    called = []
    for each in blocks_of(here.model):
        each.layer.register_forward_pre_hook(lambda *_: called.append(1))
    rest = block_costs_of._without_layers(here.model, batch)
    mlp = blocks_of(here.model)[0].layer.intermediate
    mlp.register_forward_pre_hook(lambda *_: called.append(2))
    called.clear()
    with torch.inference_mode():
        rest()
        assert called == [1, 1]
        here.model(**batch)
    assert called == [1, 1, 1, 2, 1]


def test_block_costs_are_the_usual_ones_though_the_machine_is_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def takes(milliseconds: float) -> Callable[[], None]:
        def call() -> None:
            held_up = 0.3 < now[0] < 1.0 or 1.2 < now[0] < 1.5
            now[0] += milliseconds / 1e3 * (4.0 if held_up else 1.0)

        return call

    monkeypatch.setattr(block_costs_of.time, "perf_counter", lambda: now[0])
    calls = {(0, option): takes(1.0 + option) for option in range(4)}
    found = block_costs_of._usual_times(calls, Target("cpu"), silent, seconds=2.0)
    assert found == {key: pytest.approx(1.0 + key[1]) for key in calls}
    assert now[0] < 3.0


@given(st.lists(st.floats(0.1, 5.0), min_size=4, max_size=4))
def test_more_heads_or_neurons_never_cost_less(times: list[float]) -> None:
    neurons = NeuronBlock.of(np.ones((2, 64)))
    heads = AttentionBlock.of((FULL,), np.ones((2, 8)), np.zeros((1, 2, 8)))
    for block in (neurons, heads):
        costs = block.costs(dict(zip(sorted(block.timed()), times, strict=False)))
        assert (np.diff(costs[: block.uncut + 1]) >= -1e-12).all()


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def run_folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


@pytest.mark.usefixtures("hasty")
def test_study_is_prepared_once(tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path))
    here, study, folder = load_subject(spec), new_study(), run_folder(tmp_path)
    said: list[str] = []
    first = prepare(study, spec, here, folder, lambda what, done, total: said.append(what))
    assert set(said) >= {"Ranking what may go", "Timing one layer", "Measuring blocks"}
    said.clear()
    again = prepare(study, spec, here, folder, lambda what, done, total: said.append(what))
    assert said == []
    assert again.space.forecasts == first.space.forecasts
    assert again.space.domains["attention"] == first.space.domains["attention"]
    assert structures(again.space) == structures(first.space)
    assert again.left_out == first.left_out
    assert set(first.space.forecasts) <= set(structures(first.space))


@pytest.mark.usefixtures("hasty")
def test_evidence_is_kept_with_the_run_and_its_loss_is_noticed(tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path))
    here, study, folder = load_subject(spec), new_study(), run_folder(tmp_path)
    begin = prepare(study, spec, here, folder, silent).space.forecasts
    kept = json.loads(folder.evidence.read_text())
    cut = [Candidate.from_json(text) for text in kept["forecasts"]]
    assert [each.replaced(recovery="least_squares", readout="first") for each in cut] == list(begin)
    study.ask()
    folder.evidence.write_text("{")
    with pytest.raises(RunError, match=r"evidence\.json is damaged"):
        prepare(study, spec, here, folder, silent)
    folder.evidence.unlink()
    with pytest.raises(RunError, match=r"evidence\.json is lost"):
        prepare(study, spec, here, folder, silent)


def test_run_of_version_1_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path))
    here, study, folder = load_subject(spec), new_study(), run_folder(tmp_path)
    importance = [[0.1, 0.9, 0.3, 0.2], [0.4, 0.1, 0.8, 0.5]]
    begin = Candidate(HeadMask.ranked((2, 3), np.array(importance)), (WINDOW, FULL))
    study.set_user_attr("attention", [FULL.to_dict(), WINDOW.to_dict()])
    study.set_user_attr("importance", importance)
    study.set_user_attr("forecast", [begin.to_json()])
    space = prepare(study, spec, here, folder, lambda *said: pytest.fail(str(said))).space
    assert space.forecasts == (begin,)
    assert space.suggest(optuna.trial.FixedTrial(space.params(begin))) == begin
    assert space.size == (1 + 4 * 2) ** 2  # no other axis, no other mechanism
