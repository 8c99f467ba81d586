"""A torch model as one ONNX file for every batch size and length."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache
from transformers.masking_utils import bidirectional_mask_function

from paretoformer.spaces.attention import Attention
from paretoformer.spaces.models import key_values
from paretoformer.spaces.models.families import blocks_of
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes import template_model
from paretoformer.spaces.runtimes.base import optional
from paretoformer.spaces.runtimes.cached_graph import KEPT, PAST, PRESENT, generates, names
from paretoformer.spaces.runtimes.example import (
    EXAMPLE_PAST,
    PIXELS,
    example_for,
    example_of_text,
)
from paretoformer.spaces.runtimes.graph_template import Marked, Template
from paretoformer.spaces.runtimes.torch_runtime import in_float32

OPSET = 23
"""The first opset with an attention operator. Measured on a CPU with AVX-512, 500 tokens: ONNX
Runtime takes 80 ms with it, 108 ms without; OpenVINO 71 and 81."""

LARGEST = 2 * 10**9
"""Most bytes of a model; the format is limited to 2 GiB."""

OUTPUTS = (("logits",), ("sentence_embedding",), ("last_hidden_state", "pooler_output"))
"""Outputs in order of preference; the first group that a model has is exported."""


TRACED = "paretoformer_traced"
"""The name under which traced models select sdpa with the masks of `_mask`."""


def unexportable(model: nn.Module) -> str:
    """Why a model cannot be an ONNX file; empty when it can."""
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
    """An `onnx.ModelProto` in float32; in equal processes equal models give equal bytes.

    Inputs are named as in `example`, or else as in the model; outputs as in transformers. A
    language model's graph includes the key-value cache: see `cached_graph`.

    Raises:
        ImportError: onnx or onnxscript are not installed.
    """
    for package in ("onnx", "onnxscript"):
        optional(package, "onnx")
    plain = in_float32(model).cpu().eval()
    batch = example_of_text(plain) if generates(plain) else example_for(plain, example)
    try:
        template = _template(plain, batch)
        if template is not None:
            return template.graph_of(plain)
    except Exception as error:  # a template only saves time; its failure must not fail a conversion
        logging.getLogger(__name__).info("A graph is traced by itself: %s", error)
    return _traced(plain, batch)


_TEMPLATES: OrderedDict[str, Template | None] = OrderedDict()
MOST_TEMPLATES = 8
"""Templates of one dense model: with and without a readout, or with other kinds of layers left."""


def _template(model: nn.Module, batch: Batch) -> Template | None:
    """The template of a model's kind; None: trace the model itself."""
    if reason := template_model.unsuitable(model):
        logging.getLogger(__name__).info("A graph is traced by itself: %s", reason)
        return None
    kind = template_model.kind(model, batch)
    if kind not in _TEMPLATES:
        sources = template_model.complete_layers(model)
        if not sources:  # another model of its kind may have them
            return None
        try:
            _TEMPLATES[kind] = _new_template(model, batch, sources)
        except Exception as error:  # of torch's exporter, of onnx, or ours
            logging.getLogger(__name__).info("Each graph is traced by itself: %s", error)
            _TEMPLATES[kind] = None
    _TEMPLATES.move_to_end(kind)
    while len(_TEMPLATES) > MOST_TEMPLATES:
        _TEMPLATES.popitem(last=False)
    return _TEMPLATES[kind]


def _new_template(model: nn.Module, batch: Batch, sources: Mapping[str, int]) -> Template:
    """Raises ValueError where assembled graphs give other outputs than torch. This happens where
    tracing computes values from weights, such as resized positions."""
    pattern = template_model.few_layers(model, sources)
    source = next(iter(sources.values()))
    units = template_model.Units.of(cast(Any, model).config, blocks_of(model)[source])
    template = Template(_traced(pattern, batch, marked=True), pattern, units)
    other = template_model.other_cuts(model, sources)
    named, inputs = _named(other, batch)
    with torch.no_grad():
        expected = named(*inputs.values())
    arrays = {name: each.numpy() for name, each in inputs.items()}
    content = template.graph_of(other).SerializeToString()
    runtime = optional("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = session.run(list(named.outputs), arrays)
    for name, ours, theirs in zip(named.outputs, found, expected, strict=True):
        if not torch.allclose(torch.from_numpy(ours), theirs, rtol=1e-3, atol=1e-4):
            raise ValueError(f"the graph's {name} differs.")
    return template


def _named(model: nn.Module, batch: Batch) -> tuple[_Named, dict[str, torch.Tensor]]:
    """A model in traceable form, and all of its inputs."""
    kind: type[_Named] = _Generating if generates(model) else _Named
    named = kind(model, tuple(batch)).eval()
    with torch.no_grad():
        inputs = {**batch, **named.cache(batch)}
        named.inputs, named.outputs = tuple(inputs), named.given(inputs)
    return named, inputs


def _traced(model: nn.Module, batch: Batch, *, marked: bool = False) -> Any:
    """The graph of one model. marked: also output the values inside its layers."""
    with torch.no_grad(), _quiet(), _plain_masks(model):
        named, inputs = _named(model, batch)
        marks = Marked(named, model) if marked else None
        program = torch.onnx.export(
            named if marks is None else marks,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[*named.outputs, *(() if marks is None else marks.marks)],
            dynamic_shapes=(tuple(_dynamic(name) for name in inputs),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _without_notes(program.model_proto)


class _Named(nn.Module):
    """A model with plain tuples as inputs and outputs, in the order of the names."""

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
        return {}

    def given(self, batch: Batch) -> tuple[str, ...]:
        output = self.run(batch)
        for each in OUTPUTS:
            there = tuple(n for n in each if isinstance(getattr(output, n, None), torch.Tensor))
            if there:
                return there
        raise ValueError(f"the model gives none of the outputs {OUTPUTS}.")


class _Generating(_Named):
    """A language model whose cache is passed as named tensors."""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = dict(zip(self.inputs, tensors, strict=True))
        before = iter([inputs.pop(name) for name in self.inputs if name.startswith(PAST)])
        cache = key_values.filled(list(zip(before, before, strict=True)))
        logits = self._run(inputs, cache).logits
        return logits, *(each for pair in key_values.pairs_of(cache) for each in pair)

    def cache(self, batch: Batch) -> dict[str, torch.Tensor]:
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
    """Positions for every row, because ONNX Runtime's rotary embedding does not broadcast."""
    return torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)


@contextmanager
def _plain_masks(model: nn.Module) -> Iterator[None]:
    """Within this, transformers' sdpa gets masks of few operators."""
    config = cast(Any, model).config
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = TRACED
    try:
        yield
    finally:
        config._attn_implementation = before


def _mask(
    *,
    q_length: int,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    **others: Any,
) -> torch.Tensor | None:
    """The padding, (batch, 1, queries, length), where a mask is nothing else; otherwise that of
    sdpa, which always takes 25 operators of a graph. ONNX Runtime's attention does not broadcast
    queries."""
    if mask_function is bidirectional_mask_function and attention_mask is not None:
        return attention_mask[:, None, None, :].expand(-1, -1, q_length, -1)
    others |= {"mask_function": mask_function, "attention_mask": attention_mask}
    found: torch.Tensor | None = AttentionMaskInterface()["sdpa"](q_length=q_length, **others)
    return found


def _dynamic(name: str) -> dict[int, Any]:
    axes = (0,) if name in (PIXELS, KEPT) else (0, 2) if name.startswith(PAST) else (0, 1)
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's notes, such as missing torchvision and deprecations."""
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
    """Removes stack traces: they are larger than the graph, and contain local paths."""
    graph = proto.graph
    for each in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    return proto


AttentionInterface.register(TRACED, AttentionInterface()["sdpa"])
AttentionMaskInterface.register(TRACED, _mask)
