"""Graphs put together from two traced layers answer as the models that they stand for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from onnx import numpy_helper
from torch import nn

from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.build import build
from paretoformer.spaces.runtimes import Tools, graph_template, onnx_export
from paretoformer.spaces.runtimes.example import example_for
from paretoformer.spaces.runtimes.onnx_export import onnx_model
from paretoformer.spaces.runtimes.onnxruntime import OnnxRunnable
from tests.sampled import sampled
from tests.test_surgery import inputs, tiny
from tests.test_text_generation import write_language_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
LAYERS, HEADS, NEURONS = 2, 4, 64


@pytest.fixture(autouse=True)
def own_templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of other tests stay as they are."""
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "_TEMPLATES", type(onnx_export._TEMPLATES)())
        yield


def random_candidate(rng: np.random.Generator, layers: int, heads: int, neurons: int) -> Candidate:
    """Every second layer lacks something that others have; often a layer is gone."""
    shares = rng.choice([0, 0.3, 0.7, 1], (2, layers))
    kept = [tuple((rng.random(heads) < share).tolist()) for share in shares[0]]
    rows = [np.packbits(rng.random(neurons) < share).tobytes() for share in shares[1]]
    stays = rng.random(layers) < 0.7
    stays[rng.integers(layers)] = True
    return Candidate(HeadMask(tuple(kept))).replaced(
        feed_forward=NeuronMask(tuple(rows), neurons), layers=tuple(stays.tolist())
    )


def answers(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    content = onnx_model(model, None).SerializeToString()
    return vars(OnnxRunnable(content, Tools(threads=1), couples_rows=False)(**batch))


def template_is_used() -> bool:
    return all(each is not None for each in onnx_export._TEMPLATES.values())


@sampled("family", ["bert", "vit"], ["bert"])
def test_one_template_serves_every_cut(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = tiny(family)
    onnx_model(dense, None)
    monkeypatch.setattr(onnx_export, "_traced", None)  # nothing is traced from here on
    rng = np.random.default_rng(0)
    batch = inputs(dense)
    for _ in range(12):
        cut = build(random_candidate(rng, LAYERS, HEADS, NEURONS), dense).model
        with torch.inference_mode():
            expected = cut(**batch).logits
        torch.testing.assert_close(answers(cut, batch)["logits"], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_template_of_a_language_model_has_its_cache(family: str, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path, family)
    dense = transformers.AutoModelForCausalLM.from_pretrained(folder)
    rng = np.random.default_rng(1)
    heads, neurons = (HEADS, 4 * dense.config.hidden_size) if family == "gpt2" else (2, NEURONS)
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    for _ in range(8):
        cut = build(random_candidate(rng, 3, heads, neurons), dense).model
        with torch.inference_mode():
            expected = cut(input_ids=ids).logits
        found = answers(cut, {"input_ids": ids})
        torch.testing.assert_close(found["logits"], expected, atol=1e-4, rtol=1e-4)
        assert sum(name.endswith(".key") for name in found) == cut.config.num_hidden_layers
    assert len(onnx_export._TEMPLATES) == 1
    assert template_is_used()


@pytest.mark.nightly
@pytest.mark.parametrize("pooled", [True, False])
def test_outputs_that_are_hidden_states_stay_outputs(pooled: bool) -> None:
    dense = transformers.BertModel(tiny("bert").config, add_pooling_layer=pooled).eval()
    batch = inputs(tiny("bert"))
    with torch.inference_mode():
        expected = dense(**batch).last_hidden_state
    found = answers(dense, batch)
    torch.testing.assert_close(found["last_hidden_state"], expected, atol=1e-5, rtol=1e-4)
    assert ("pooler_output" in found) == pooled
    assert template_is_used()


@pytest.mark.nightly
def test_readout_is_another_kind() -> None:
    dense, batch = tiny("bert"), inputs(tiny("bert"))
    candidate = Candidate.dense(LAYERS, HEADS)
    for each in (candidate, candidate.replaced(readout="first")):
        model = build(each, dense).model
        with torch.inference_mode():
            expected = model(**batch).logits
        torch.testing.assert_close(answers(model, batch)["logits"], expected, atol=1e-5, rtol=1e-4)
    assert len(onnx_export._TEMPLATES) == 2
    assert template_is_used()


@pytest.mark.nightly
def test_graph_has_the_operators_of_a_traced_one() -> None:
    dense = tiny("bert")
    found, traced = onnx_model(dense, None), onnx_export._traced(dense, example_for(dense))
    assert template_is_used()
    assert operators(found) == operators(traced)
    assert [each.name for each in found.graph.input] == [each.name for each in traced.graph.input]


def operators(proto: Any) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


@pytest.mark.nightly
def test_equal_models_give_equal_bytes() -> None:
    first, second = (onnx_model(tiny("bert"), None).SerializeToString() for _ in range(2))
    assert first == second
    onnx_export._TEMPLATES.clear()
    assert onnx_model(tiny("bert"), None).SerializeToString() == first


@pytest.mark.nightly
def test_graph_that_differs_from_torch_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then each model is traced by itself, and the log says why."""
    right = graph_template._constant
    monkeypatch.setattr(
        graph_template, "_constant", lambda name, output: _added(right(name, output))
    )
    dense, batch = tiny("bert"), inputs(tiny("bert"))
    with caplog.at_level(logging.INFO, "paretoformer"), torch.inference_mode():
        found, expected = answers(dense, batch)["logits"], dense(**batch).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not template_is_used()
    assert "Each graph is traced by itself: the graph's logits differs." in caplog.text


def _added(tensor: Any) -> Any:
    """Not the same for every feature, which a LayerNorm would take away."""
    values = numpy_helper.to_array(tensor)
    ramp = np.arange(values.size, dtype=values.dtype)
    return numpy_helper.from_array(values + ramp, tensor.name)


@pytest.mark.nightly
def test_layers_that_scale_their_scores_differently_are_traced() -> None:
    """gpt2 may divide them by the number of the layer, which no layer but its own has."""
    config = tiny("gpt2").config
    config.scale_attn_by_inverse_layer_idx = True
    torch.manual_seed(0)
    dense = transformers.GPT2ForSequenceClassification(config).eval()
    batch = inputs(dense)
    for parameter in dense.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.inference_mode():
        expected = dense(**batch).logits
    torch.testing.assert_close(answers(dense, batch)["logits"], expected, atol=1e-4, rtol=1e-4)
    assert not onnx_export._TEMPLATES


@pytest.mark.nightly
def test_images_of_another_size_are_another_kind() -> None:
    """There positions are interpolated, which tracing does at once: no template can do it later."""
    dense = tiny("dinov2")
    for side in (30, 42):
        batch = {"pixel_values": torch.randn(2, 3, side, side)}
        content = onnx_model(dense, batch).SerializeToString()
        with torch.inference_mode():
            expected = dense(**batch).logits
        found = OnnxRunnable(content, Tools(threads=1), couples_rows=False)(**batch).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert [each is not None for each in onnx_export._TEMPLATES.values()] == [True, False]


def test_a_template_that_fails_costs_no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, model: Any) -> Any:
        raise RuntimeError("it is broken")

    monkeypatch.setattr(graph_template.Template, "graph_of", fails)
    dense, batch = tiny("bert"), inputs(tiny("bert"))
    with torch.inference_mode():
        expected = dense(**batch).logits
    torch.testing.assert_close(answers(dense, batch)["logits"], expected, atol=1e-5, rtol=1e-4)


def test_model_without_a_complete_layer_is_traced() -> None:
    dense, batch = tiny("bert"), inputs(tiny("bert"))
    cut = build(Candidate(HeadMask.none(LAYERS, HEADS)), dense).model
    with torch.inference_mode():
        expected = cut(**batch).logits
    torch.testing.assert_close(answers(cut, batch)["logits"], expected, atol=1e-5, rtol=1e-4)
    assert not onnx_export._TEMPLATES
