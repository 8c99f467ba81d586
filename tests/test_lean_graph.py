"""Graphs for ONNX Runtime give the same answers with fewer operators."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.build import build
from paretoformer.spaces.runtimes.example import example_for
from paretoformer.spaces.runtimes.lean_graph import lean
from paretoformer.spaces.runtimes.onnx_export import onnx_model
from paretoformer.spaces.runtimes.onnxruntime import _quantized
from tests.sampled import sampled
from tests.test_surgery import tiny
from tests.test_text_generation import write_language_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def outputs(proto: Any, batch: dict[str, torch.Tensor], folder: Path | None = None) -> Any:
    """folder: where to write the graph as ONNX Runtime executes it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if folder is not None:
        options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {name: each.numpy() for name, each in batch.items()})


def operators(proto: Any) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


@sampled("family", ["bert", "roberta", "electra", "distilbert", "vit"], ["bert", "distilbert"])
def test_lean_graph_gives_the_same_answers(family: str) -> None:
    """With layers of different sizes, one without heads, and padded rows."""
    model = build(
        Candidate(HeadMask(((True, False, True, False), (False,) * 4))), tiny(family)
    ).model
    batch = example_for(model)
    if "attention_mask" in batch:
        batch["attention_mask"][1, 15:] = 0
    plain = onnx_model(model, None)
    found = lean(copy.deepcopy(plain))
    onnx.checker.check_model(found)
    for ours, theirs in zip(outputs(found, batch), outputs(plain, batch), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert len(found.graph.node) < len(plain.graph.node)


def test_heads_are_split_and_joined_by_the_attention_alone() -> None:
    model = tiny("bert")
    plain = operators(onnx_model(model, None))
    found = operators(lean(onnx_model(model, None)))
    layers = model.config.num_hidden_layers
    assert plain["Transpose"] == plain["Reshape"] == 4 * layers
    assert found["Transpose"] == found["Reshape"] == 0
    assert found["Attention"] == layers


def test_norm_is_not_fused_with_the_sum_before_it(tmp_path: Path) -> None:
    model = tiny("bert")
    fused = []
    for change in (lambda proto: proto, lean):
        quantized = onnx.load_from_string(_quantized(change(onnx_model(model, None))))
        outputs(quantized, example_for(model), tmp_path)
        executed = operators(onnx.load(tmp_path / "optimized.onnx"))
        fused.append(executed["SkipLayerNormalization"])
    assert fused[0] > 0
    assert fused[1] == 0


def test_mask_of_padding_takes_few_operators() -> None:
    found = operators(onnx_model(tiny("bert"), None))
    assert found.keys().isdisjoint({"GatherND", "Range", "And", "GreaterOrEqual"})


def test_graph_with_a_cache_keeps_its_attention(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path, "gpt2")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    plain = onnx_model(model, None)
    found = lean(copy.deepcopy(plain))
    attention = [node for node in found.graph.node if node.op_type == "Attention"]
    assert attention == [node for node in plain.graph.node if node.op_type == "Attention"]
