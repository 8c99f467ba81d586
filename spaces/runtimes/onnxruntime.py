"""ONNX Runtime, on CPUs."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.spaces.runtimes.base import (
    Runnable,
    Runtime,
    Tools,
    check_threads,
    missing,
    optional,
    register,
)
from paretoformer.spaces.runtimes.exported import Exported
from paretoformer.spaces.runtimes.lean_graph import lean
from paretoformer.spaces.runtimes.onnx_export import onnx_model, unexportable
from paretoformer.spaces.runtimes.sessions import ONNX, onnx_session

BITS = {"int8_weights": 8, "int4_weights": 4}
BLOCK = 32
"""Weights that share a scale."""
INT8_ACTIVATIONS = 4
"""`accuracy_level` of `MatMulNBits`."""


class OnnxRunnable(Exported):
    def __init__(self, content: bytes, tools: Tools, *, couples_rows: bool) -> None:
        self.couples_rows = couples_rows
        self._content = content
        optional("onnxruntime", "onnx")
        self._session = onnx_session(content, tools.threads)
        self.shapes = {each.name: _sizes(each.shape) for each in self._session.get_inputs()}
        self._outputs = tuple(each.name for each in self._session.get_outputs())
        check_threads("ONNX Runtime", self.threads, tools.threads)

    def run(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        outputs = self._session.run(None, dict(feed))
        return dict(zip(self._outputs, outputs, strict=True))

    @property
    def weight_bytes(self) -> int:
        """Size of the file: the weights, and a graph of some hundred kilobytes."""
        return len(self._content)

    @property
    def threads(self) -> int:
        return int(self._session.get_session_options().intra_op_num_threads)

    def save(self, folder: Path) -> None:
        path = folder / ONNX
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._content)


class OnnxRuntime(Runtime):
    """int8: weights per channel, activations by the range of each batch.

    The embedding tables (`Gather`) are int8, too. Measured on MiniLM: the file has 23 MB instead of
    59, the speed is the same, and the error of the logits grows from 1.7 to 1.9% (random weights).

    int8_weights, int4_weights: matrices in blocks of 32 weights with a scale each (`MatMulNBits`),
    activations of each row in int8, likewise. Reading weights dominates the time of one token.
    """

    name = "onnxruntime"
    precisions = ("float32", "int4_weights", "int8_weights", "int8")
    files = (ONNX,)
    generates = True
    one_graph = True
    tells_peak = True
    for_generation = ("int4_weights", "int8_weights")
    summary = (
        "ONNX Runtime on CPU; int8: dynamic, per channel, with the embeddings; int8_weights and "
        "int4_weights: in blocks of 32, for language models"
    )
    source = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"

    def unavailable(self, precision: str, device: str) -> str:
        if torch.device(device).type != "cpu":
            return "used on CPUs only"
        return missing("onnx", "onnx", "onnxscript", "onnxruntime")

    def unsuitable(self, precision: str, model: nn.Module) -> str:
        return unexportable(model)

    def convert(self, model: nn.Module, precision: str, tools: Tools) -> Runnable:
        self.check(precision, model)
        proto = lean(onnx_model(model, tools.example))
        if precision in BITS:
            content = _with_small_weights(proto, BITS[precision])
        else:
            content = _quantized(proto) if precision == "int8" else proto.SerializeToString()
        return OnnxRunnable(content, tools, couples_rows=precision == "int8")

    def load(self, folder: Path, precision: str, tools: Tools) -> Runnable:
        content = (folder / ONNX).read_bytes()
        return OnnxRunnable(content, tools, couples_rows=precision == "int8")


def _sizes(shape: Sequence[Any]) -> list[int | None]:
    """A dynamic size has a name, or none."""
    return [each if isinstance(each, int) else None for each in shape]


def _quantized(proto: Any) -> bytes:
    """The model with its matrix products and embedding tables in int8."""
    quantization = optional("onnxruntime.quantization", "onnx")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().addFilter(_hint)
        try:
            quantization.quantize_dynamic(
                proto,
                Path(folder) / "model.onnx",
                op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            logging.getLogger().removeFilter(_hint)
        return (Path(folder) / "model.onnx").read_bytes()


def _with_small_weights(proto: Any, bits: int) -> bytes:
    """The model with the weights of its matrix products in blocks of few bits."""
    with _root_logger_untouched():
        nbits = optional("onnxruntime.quantization.matmul_nbits_quantizer", "onnx")
    quantizer = nbits.MatMulNBitsQuantizer(
        proto,
        bits=bits,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ACTIVATIONS,
    )
    quantizer.process()
    content: bytes = quantizer.model.model.SerializeToString()
    return content


@contextmanager
def _root_logger_untouched() -> Iterator[None]:
    """`logging.basicConfig`, which the quantizer calls, does nothing where a handler is."""
    handler, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _hint(record: logging.LogRecord) -> bool:
    """Filters out the advice to preprocess the model, which has no effect."""
    return "pre-processing" not in record.getMessage()


register(OnnxRuntime())
