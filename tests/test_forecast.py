"""Sensitivity and forecast: where a search begins."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import optuna
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.block_costs import block_costs
from paretoformer.search.prepare import prepared_space
from paretoformer.search.spec import load_spec
from paretoformer.search.subject import Subject, load_subject
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention import build
from paretoformer.spaces.attention.interface import MECHANISM
from paretoformer.spaces.families import blocks_of
from paretoformer.spaces.forecast import BlockCosts, forecast
from paretoformer.spaces.importance import Sensitivity, sensitivity
from paretoformer.spaces.surgery import apply
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
        output = build(FULL, query.shape[-1])(query, key, value, **call)
        other = build(self.choice, query.shape[-1])(query, key, value, **call)
        output[:, self.head] += self.step * (other - output)[:, self.head]
        return output


def test_swap_is_scored_by_the_slope_of_the_loss_towards_it() -> None:
    model = tiny("bert").double()
    batch = {key: value[:1] for key, value in inputs(model).items()}
    labels = torch.tensor([1])
    scored = sensitivity(model, [(batch, labels)], loss, [FULL, EXACT, WINDOW]).swapped
    assert scored.shape == (3, 2, 4)
    np.testing.assert_allclose(scored[:2], 0, atol=1e-12)

    def blended(layer: int, head: int, step: float) -> float:
        rebuilt = apply(Candidate(HeadMask.all(2, 4), (EXACT, EXACT)), model).model
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
    scored = sensitivity(model, [(inputs(model), torch.tensor([0, 1, 1]))], loss, [FULL])
    assert scored.removed.shape == (2, 4)  # a group of query heads is one
    assert model.config._attn_implementation == "sdpa"
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def problem(seed: int) -> tuple[Sensitivity, BlockCosts]:
    """Two layers, three mechanisms, three heads; cheaper mechanisms harm more."""
    rng = np.random.default_rng(seed)
    swapped = rng.random((3, 2, 3)) * np.array([0, 0.5, 1])[:, None, None]
    time = np.linspace(0, 1, 4) * np.array([3.0, 2.0, 1.0])[:, None] * rng.uniform(0.8, 1.2, (3, 1))
    costs = BlockCosts((FULL, EXACT, WINDOW), time)
    return Sensitivity(rng.random((2, 3)), swapped), costs


def predicted(candidate: Candidate, scored: Sensitivity, costs: BlockCosts) -> tuple[float, float]:
    damage = time = 0.0
    norms = np.linalg.norm(scored.removed, axis=1)
    for layer, (row, choice) in enumerate(
        zip(candidate.heads.kept, candidate.attention, strict=True)
    ):
        index = costs.choices.index(choice)
        for head, keep in enumerate(row):
            effect = (scored.swapped[index] if keep else scored.removed)[layer, head]
            damage += float(effect / norms[layer])
        time += float(costs.milliseconds[index, sum(row)])
    return damage, time


@given(st.integers(0, 1000))
def test_nothing_is_predicted_better_than_what_was_forecast(seed: int) -> None:
    scored, costs = problem(seed)
    every = [
        predicted(Candidate(HeadMask.ranked(counts, scored.importance), pair), scored, costs)
        for counts in itertools.product(range(4), repeat=2)
        for pair in itertools.product(costs.choices, repeat=2)
    ]
    found = forecast(scored, costs, 100)
    for damage, time in (predicted(candidate, scored, costs) for candidate in found):
        assert not any(d < damage - 1e-9 and t < time - 1e-9 for d, t in every)


def test_forecast_gives_the_number_asked_for_from_slow_to_fast() -> None:
    scored, costs = problem(1)
    found = forecast(scored, costs, 4)
    times = [predicted(candidate, scored, costs)[1] for candidate in found]
    assert 2 <= len(found) <= 4
    assert times == sorted(times, reverse=True)
    assert not any(candidate.is_dense or not candidate.heads.total for candidate in found)


def test_forecast_keeps_every_head_where_none_may_go() -> None:
    found = forecast(*problem(2), 100, prune=False)
    assert found
    assert {candidate.heads.total for candidate in found} == {6}


def subject(tmp_path: Path) -> Subject:
    return load_subject(load_spec(write_study(tmp_path)), lambda what, done, total: None)


def test_block_costs_are_those_of_the_attention_alone(tmp_path: Path) -> None:
    here = subject(tmp_path)
    costs = block_costs(here.model, here.workload, here.target, [FULL, WINDOW])
    assert costs.milliseconds.shape == (2, 5)
    assert not costs.milliseconds[:, 0].any()
    assert (costs.milliseconds >= 0).all()
    assert costs.milliseconds.max() > 0


def test_prepared_space_is_prepared_once(tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path))
    here = load_subject(spec, lambda what, done, total: None)
    study = optuna.create_study(directions=["maximize", "minimize"])
    said: list[str] = []
    first = prepared_space(study, spec, here, lambda what, done, total: said.append(what))
    assert set(said) == {"Ranking heads and mechanisms", "Timing one layer"}
    said.clear()
    again = prepared_space(study, spec, here, lambda what, done, total: said.append(what))
    assert said == []
    assert again.begin == first.begin
    assert again.choices == first.choices
    assert again.planted() == first.planted()
    assert set(first.begin) <= set(first.planted())
