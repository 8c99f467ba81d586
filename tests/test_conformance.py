"""Every registered axis, and the task, keep the promises of `paretoformer.testing`."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paretoformer.evaluators.tasks import task_names, task_of
from paretoformer.search.report.cells import described
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes import axes, axis_of
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.models.divergence import (
    Answers,
    Directions,
    MultiLabel,
    Numbers,
    TokenDistributions,
)
from paretoformer.testing import check_axis, check_domain, check_task

SHAPE = Shape(layers=3, heads=4)
RNG = np.random.default_rng(0)
WINDOW = AttentionChoice.of("window", window=16, global_tokens=1)
FULL = AttentionChoice("full")

VALUES: dict[str, list[Any]] = {
    "heads": [HeadMask.none(3, 4), HeadMask.ranked((1, 0, 4), RNG.random((3, 4)))],
    "attention": [(WINDOW, FULL, WINDOW)],
    "feed_forward": [NeuronMask.ranked((32, 0, 96), RNG.random((3, 96)))],
    "layers": [(True, False, True)],
    "recovery": ["least_squares", "distilled:2.5"],
    "readout": ["first"],
    "vocabulary": [6012],
    "runtime": ["onnxruntime:int8", "torch:bfloat16"],
}
FACTS: dict[str, dict[str, Any]] = {
    "heads": {"removed": RNG.random((3, 4)).tolist()},
    "attention": {"choices": [FULL.to_dict(), WINDOW.to_dict()]},
    "feed_forward": {"removed": RNG.random((3, 96)).tolist()},
    "layers": {"removal": [1, 2]},
    "recovery": {"method": "least_squares"},
    "readout": {"value": "first"},
    "vocabulary": {"tokens": list(range(6012))},
    "runtime": {"choices": ["torch", "onnxruntime:int8"]},
}
every_axis = pytest.mark.parametrize("name", [axis.name for axis in axes()])


@every_axis
def test_axis_keeps_its_promises(name: str) -> None:
    check_axis(axis_of(name), SHAPE, VALUES[name])


HALF = Candidate(
    HeadMask(((True,) * 4 + (False,) * 8,) * 6),
    (WINDOW, FULL, WINDOW, WINDOW, WINDOW, FULL),
    feed_forward=NeuronMask.ranked((24, 96, 24, 96, 48, 0), RNG.random((6, 96))),
    layers=(True, False, True, False, True, False),
    recovery="distilled:2.5",
    readout="first",
    vocabulary=6012,
    runtime="onnxruntime:int8",
)
"""Three of six layers are removed, and would have 36 of 48 heads."""
SHOWN = {
    "heads": ("12/36", "12 of 36 heads"),
    "attention": ("window", "window attention in 3 of 3 layers"),
    "feed_forward": ("33%", "33% of the neurons"),
    "layers": ("3/6", "3 of 6 layers"),
    "recovery": ("distilled 2.5 min", "distilled for 2.5 minutes"),
    "readout": ("first", "the first token alone in the last layer"),
    "vocabulary": ("6,012", "6,012 rows of the embedding table"),
    "runtime": ("onnxruntime:int8", "in onnxruntime:int8"),
}


def test_every_axis_shows_only_what_the_model_still_has() -> None:
    assert {axis.name: HALF.cell(axis.name) for axis in axes()} == {
        name: cell for name, (cell, _) in SHOWN.items()
    }
    assert set(HALF.phrase.split(", ")) == {phrase for _, phrase in SHOWN.values()}
    assert described(HALF).startswith("heads 12/36, attention window, feed_forward 33%, layers 3/6")


def test_uncompressed_model_shows_all_that_it_has() -> None:
    dense = Candidate.dense(6, 12)
    cells = [dense.cell(axis.name) for axis in axes()]
    assert cells == ["72/72", "full", "100%", "6/6", "none", "all", "all", "torch"]
    assert dense.phrase == "the uncompressed model"


@every_axis
def test_domain_keeps_its_promises(name: str) -> None:
    axis = axis_of(name)
    facts = axis.facts.from_json(FACTS[name])
    assert axis.facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    domain = axis.domain(axis.setting_default, facts, SHAPE)
    assert domain.size > 1 or domain.starts()[0] != axis.default(SHAPE)
    check_domain(domain, axis.default(SHAPE))


@every_axis
def test_axis_without_facts_stays_at_its_default(name: str) -> None:
    axis = axis_of(name)
    domain = axis.domain(axis.setting_default, axis.facts(), SHAPE)
    assert list(domain.starts()) == [axis_of(name).default(SHAPE)]


UNIT = torch.nn.functional.normalize(torch.randn(1, 6, generator=torch.Generator().manual_seed(0)))
ANSWERS: dict[str, tuple[Answers, torch.Tensor, float, dict[str, torch.Tensor]]] = {
    "numbers": (Numbers(), torch.tensor([[0.7]]), 1e-2, {}),
    "labels": (MultiLabel(), torch.tensor([[0.4, -1.0, 2.0, 0.1]]), 1e-2, {}),
    "directions": (Directions(), UNIT, 1e-3, {}),
    "tokens": (
        TokenDistributions(),
        torch.linspace(-1, 2, 12).reshape(1, 4, 3),
        1e-2,
        {"attention_mask": torch.tensor([[1, 1, 1, 0]])},
    ),
}
"""Answers, an output, the length of a step from it, and its batch."""


@pytest.mark.parametrize("kind", ANSWERS)
def test_squared_probe_is_the_curvature_of_the_divergence(kind: str) -> None:
    answers, output, length, batch = ANSWERS[kind]

    def given(values: torch.Tensor) -> Any:
        return SimpleNamespace(logits=values, sentence_embedding=values)

    generator = torch.Generator().manual_seed(1)
    step, squares = length * torch.randn(output.shape, generator=generator), []
    for _ in range(3000):
        leaf = output.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(answers.probe(given(leaf), generator, batch), leaf)
        squares.append(float((gradient * step).sum() ** 2))
    wanted = 2 * float(answers.divergence(given(output + step), given(output), batch))
    assert np.mean(squares) == pytest.approx(wanted, rel=0.1)
    near, far = (given(output + size * step / length) for size in (0.1, 0.5))
    assert float(answers.distance(far, given(output), batch)) > 0
    assert answers.distance(far, given(output), batch) > answers.distance(
        near, given(output), batch
    )


@pytest.mark.parametrize("name", task_names())
def test_task_keeps_its_promises(name: str) -> None:
    logits, labels = torch.tensor([[0.1, 2.0], [1.0, -1.0]]), torch.tensor([1, 0])
    others = {
        "token-classification": (logits[:, None].expand(2, 3, 2), labels[:, None].expand(2, 3)),
        "text-generation": (logits[:, None].expand(2, 3, 2), labels[:, None].expand(2, 3)),
        "multi-label-classification": (logits, torch.tensor([[1, 1], [0, 1]])),
        "text-regression": (logits[:, :1], labels),
        "reranking": (logits[:, :1], torch.tensor([[1, 0], [0, 0]])),
        "retrieval": (logits, torch.tensor([[1, 0], [1, 0]])),
    }
    logits, labels = others.get(name, (logits, labels))
    output = SimpleNamespace(
        logits=logits, sentence_embedding=torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    )
    check_task(task_of(name), output, labels)
