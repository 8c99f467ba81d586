"""Sensitivity and forecast: where a search begins."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from paretoformer.search.planning.block_table import BlockTable
from paretoformer.search.planning.forecast import _staying
from paretoformer.search.planning.prepare import prepare
from paretoformer.search.proposers.standard import structures
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes.attention_options import AttentionBlock
from paretoformer.spaces.axes.feed_forward import NeuronBlock
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.models.families import blocks_of
from tests.test_surgery import inputs, tiny
from tests.tiny import write_study

FULL = AttentionChoice("full")
WINDOW = AttentionChoice.of("window", window=3, global_tokens=0)


def loss(output, labels):
    return torch.nn.functional.cross_entropy(output.logits, labels, reduction="sum")


def test_sensitivity_leaves_the_model_as_it_was() -> None:
    model = tiny("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probes = {"heads": OutputProbe(lambda block: block.output, 4)}
    found = sensitivity(model, [(inputs(model), torch.tensor([0, 1, 1]))], loss, probes)
    assert np.shape(found["heads"]["removed"]) == (2, 4)  # a group of query heads is one
    assert model.config._attn_implementation == "sdpa"
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def subject(tmp_path: Path) -> Subject:
    return load_subject(load_spec(write_study(tmp_path)))


def test_block_costs_are_those_of_the_attention_alone(tmp_path: Path) -> None:
    here = subject(tmp_path)
    choices = (FULL, WINDOW)
    block = AttentionBlock(choices, np.ones((2, 4)))
    costs = block_costs(here.model, here.workload, here.target, {"heads": block}).blocks["heads"]
    costs = costs.reshape(len(choices), 5)
    assert not costs[:, 0].any()
    assert (costs >= 0).all()
    assert costs.max() > 0


def test_costs_of_a_forward_are_those_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = subject(tmp_path)
    heads = AttentionBlock((FULL,), np.ones((2, 4)))
    neurons = NeuronBlock.of(np.ones((2, 64)))
    named = {("rest", 0): 0.5, ("last", 0): 8.0, ("last", 1): 2.0}

    def times(calls: dict[Any, Callable[[], Any]], *_: Any) -> dict[Any, float]:
        """Four milliseconds of heads, three of neurons, one of what is left."""
        blocks = {"heads": (heads, 4.0), "neurons": (neurons, 3.0)}
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
    arguments: Any = (here.model, here.workload, here.target, {"heads": heads, "neurons": neurons})
    found = block_costs(*arguments, dense.replaced(readout="first"))
    assert [each.max() for each in found.blocks.values()] == pytest.approx([4.0, 3.0])
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
    heads = AttentionBlock((FULL,), np.ones((2, 8)))
    for block in (neurons, heads):
        costs = block.costs(dict(zip(sorted(block.timed()), times, strict=False)))
        assert (np.diff(costs[: block.uncut + 1]) >= -1e-12).all()


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def run_folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


@pytest.mark.nightly
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


def test_layers_that_were_not_tried_without_are_said() -> None:
    tried = BlockTable({}, np.array([0.1, 0.2]))
    assert _staying(tried) == ""
    untried = BlockTable({}, np.array([0.1, np.inf]))
    assert _staying(untried).startswith("1 of 2 layers are not removed, since there was no time")
