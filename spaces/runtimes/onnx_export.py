"""A torch model as one ONNX file, which serves every batch size and length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache

from paretoformer.spaces import key_values
from paretoformer.spaces.attention import Attention
from paretoformer.spaces.runtimes.base import Batch, optional
from paretoformer.spaces.runtimes.cached_graph import KEPT, PAST, PRESENT, generates, names
from paretoformer.spaces.runtimes.example import (
    EXAMPLE_PAST,
    PIXELS,
    example_for,
    example_of_text,
)
from paretoformer.spaces.runtimes.torch_runtime import in_float32

OPSET = 23
"""The first with an operator for attention. Measured on a CPU with AVX-512, 500 tokens: ONNX
Runtime takes 80 ms with it, 108 ms without; OpenVINO 71 and 81."""

LARGEST = 2 * 10**9
"""Bytes of a model; a file of this format ends at 2 GiB."""

OUTPUTS = (("logits",), ("sentence_embedding",), ("last_hidden_state", "pooler_output"))
"""What a user reads of a model, the first of these that it gives; no caches, no hidden states."""


def unexportable(model: nn.Module) -> str:
    """Why a model does not fit an ONNX file; empty when it does."""
    for each in model.modules():
        if isinstance(each, Attention) and (reason := each.unexportable()):
            return f"attention {each.name!r} {reason}"
        if isinstance(each, Attention) and each.name != "full" and generates(model):
            return (
                f"attention {each.name!r} is another computation where there is a key-value cache, "
                "and a graph holds one"
            )
    size = sum(each.numel() * 4 for each in model.parameters())
    return f"it has {size / 1e9:.1f} GB in float32, and one file holds 2" if size > LARGEST else ""


def onnx_model(model: nn.Module, example: Batch | None) -> Any:
    """An `onnx.ModelProto` in float32; equal models give equal bytes.

    Inputs are named as `example` names them, or else as the model does, outputs as in transformers.
    Of a language model it takes and gives the key-value cache as well: see `cached_graph`.

    Raises:
        ImportError: onnx or onnxscript are not installed.
    """
    for package in ("onnx", "onnxscript"):
        optional(package, "onnx")
    kind: type[_Named] = _Generating if generates(model) else _Named
    batch = example_of_text(model) if generates(model) else example_for(model, example)
    named = kind(in_float32(model), tuple(batch)).cpu().eval()
    with torch.no_grad(), _quiet():
        batch |= named.cache(batch)
        named.inputs, named.outputs = tuple(batch), named.given(batch)
        program = torch.onnx.export(
            named,
            tuple(batch.values()),
            input_names=list(batch),
            output_names=list(named.outputs),
            dynamic_shapes=(tuple(_dynamic(name) for name in batch),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _without_notes(program.model_proto)


class _Named(nn.Module):
    """A model that takes and returns plain tuples, in the order of the names."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs
        self.outputs: tuple[str, ...] = ()
        config: Any = model.config
        self.options = {"use_cache": False} if hasattr(config, "use_cache") else {}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.run(dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(output, name) for name in self.outputs)

    def run(self, batch: Batch) -> Any:
        rotary = getattr(self.model.config, "rope_parameters", None) is not None
        positions = {"position_ids": _positions(batch["input_ids"])} if rotary else {}
        return self.model(**batch, **positions, **self.options)

    def cache(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Inputs for the tokens before; none where the model keeps none."""
        return {}

    def given(self, batch: Batch) -> tuple[str, ...]:
        """The names of the outputs that the model gives."""
        output = self.run(batch)
        for each in OUTPUTS:
            there = tuple(n for n in each if isinstance(getattr(output, n, None), torch.Tensor))
            if there:
                return there
        raise ValueError(f"the model gives none of the outputs {OUTPUTS}.")


class _Generating(_Named):
    """A language model whose cache is tensors by name, before and after."""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = dict(zip(self.inputs, tensors, strict=True))
        before = iter([inputs.pop(name) for name in self.inputs if name.startswith(PAST)])
        cache = key_values.filled(list(zip(before, before, strict=True)))
        logits = self._run(inputs, cache).logits
        return logits, *(each for pair in key_values.pairs_of(cache) for each in pair)

    def cache(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What the model keeps of some tokens."""
        cache = DynamicCache()
        tokens = batch["input_ids"][:, :EXAMPLE_PAST]
        self._run({"input_ids": tokens}, cache)
        pairs = key_values.pairs_of(cache)
        tensors = (each for pair in pairs for each in pair)
        return dict(zip(names(PAST, len(pairs)), tensors, strict=True))

    def given(self, batch: Batch) -> tuple[str, ...]:
        layers = sum(name.startswith(PAST) for name in batch) // 2
        return ("logits", *names(PRESENT, layers))

    def _run(self, inputs: Batch, cache: Cache) -> Any:
        return self.model(**inputs, **{key_values.argument(self.model): cache}, use_cache=True)


def _positions(tokens: torch.Tensor) -> torch.Tensor:
    """What the model assumes, for every row: ONNX Runtime's rotary embedding takes no broadcast."""
    return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)


def _dynamic(name: str) -> dict[int, Any]:
    """The axes of an input whose sizes vary."""
    axes = (0,) if name in (PIXELS, KEPT) else (0, 2) if name.startswith(PAST) else (0, 1)
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on itself: that torchvision is missing, what it deprecates."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_notes(proto: Any) -> Any:
    """Without stack traces: they are larger than the graph, and name folders of this machine."""
    graph = proto.graph
    for each in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    return proto
