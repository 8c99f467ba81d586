"""OpenVINO, on CPUs."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.spaces.common.instructions import capabilities
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes.base import (
    Runnable,
    Runtime,
    Tools,
    check_threads,
    missing,
    optional,
    register,
)
from paretoformer.spaces.runtimes.exported import Exported, Shapes, arrays
from paretoformer.spaces.runtimes.onnx_export import onnx_model, unexportable
from paretoformer.spaces.runtimes.sessions import OPENVINO, openvino_model

GROUP = "128"
"""Activations of a row that share a scale in int8_dynamic."""


class OpenVinoRunnable(Exported):
    def __init__(self, model: Any, precision: str, tools: Tools) -> None:
        self._model = model
        self._compiled = openvino_model(model, tools.threads, precision)
        self._request = self._compiled.create_infer_request()
        self.shapes = _shapes(self._compiled)
        self._outputs = tuple(each.any_name for each in self._compiled.outputs)
        check_threads("OpenVINO", self.threads, tools.threads)

    def run(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        results = self._request.infer(dict(feed), share_inputs=True)
        return {name: np.asarray(results[name], np.float32) for name in self._outputs}

    @property
    def weight_bytes(self) -> int:
        """Bytes of the constants in the file; bfloat16 weights are stored as float32."""
        constants = (op for op in self._model.get_ops() if op.get_type_name() == "Constant")
        return sum(int(op.get_byte_size()) for op in constants)

    @property
    def threads(self) -> int:
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    def save(self, folder: Path) -> None:
        path = folder / OPENVINO[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        optional("openvino", "openvino").save_model(self._model, path, compress_to_fp16=False)


class OpenVino(Runtime):
    """Models are converted through ONNX: with its attention operator this is as fast as converting
    the torch program, and both runtimes share one export.

    int8: weights per channel, activations by ranges from training inputs. int8_weights: weights are
        stored in int8, per channel; reading them dominates the time of one token. OpenVINO may
        quantise activations dynamically, in groups of 32 within a row, if that is faster.
    int8_dynamic: weights are symmetric, which makes larger groups fast. Needs no data.
    """

    name = "openvino"
    precisions = ("float32", "bfloat16", "int8_weights", "int8_dynamic", "int8")
    files = OPENVINO
    generates = True
    one_graph = True
    tells_peak = True
    for_generation = ("int8_weights",)
    summary = (
        "OpenVINO on CPU; int8: calibrated by NNCF, needs training inputs; int8_dynamic: does not"
    )
    source = "https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html"

    def unavailable(self, precision: str, device: str) -> str:
        if torch.device(device).type != "cpu":
            return "used on CPUs only"
        needed = ("nncf",) if precision.startswith("int8") else ()
        reason = missing("openvino", "openvino", *needed) or missing("onnx", "onnx", "onnxscript")
        if reason or precision != "bfloat16":
            return reason
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "" if "BF16" in able else "this CPU has no bfloat16 instructions"

    def slower(self, precision: str, device: str) -> str:
        has = capabilities()
        without_vnni = has.get("avx2") and not (has.get("avx512_f") or has.get("avx_vnni"))
        if precision == "int8" and without_vnni:
            return "slower than float32 on a CPU without VNNI; name it to try it"
        return ""

    def quick(self, precisions: Sequence[str]) -> str:
        """int8_dynamic is as fast as calibrated int8 for short texts, and converts in a tenth of
        the time: a model of BERT-base's size in 4 s instead of 41."""
        return "int8_dynamic" if "int8_dynamic" in precisions else precisions[-1]

    def unsuitable(self, precision: str, model: nn.Module) -> str:
        return unexportable(model)

    def convert(self, model: nn.Module, precision: str, tools: Tools) -> Runnable:
        self.check(precision, model)
        if precision == "int8" and tools.calibration is None:
            raise ValueError(
                "openvino:int8 calibrates on training inputs, so it needs a study's data."
            )
        content = onnx_model(model, tools.example).SerializeToString()
        # Not by `convert_model`, which sends telemetry over the network.
        graph = _core().read_model(content)
        if tools.calibration is not None and precision == "int8":
            graph = _quantized(graph, tools.calibration)
        if precision == "int8_weights":
            graph = _with_small_weights(graph, "INT8_ASYM")
        if precision == "int8_dynamic":
            graph = _with_small_weights(graph, "INT8_SYM")
            # Stands in the file, so that it holds wherever the file is loaded.
            graph.set_rt_info(GROUP, ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
        return OpenVinoRunnable(_numbered(graph), precision, tools)

    def load(self, folder: Path, precision: str, tools: Tools) -> Runnable:
        return OpenVinoRunnable(_core().read_model(folder / OPENVINO[0]), precision, tools)


def _shapes(model: Any) -> Shapes:
    return {
        each.any_name: [
            size.get_length() if size.is_static else None for size in each.partial_shape
        ]
        for each in model.inputs
    }


def _core() -> Any:
    return optional("openvino", "openvino").Core()


def _numbered(graph: Any) -> Any:
    """The graph with its inner nodes named by their order. OpenVINO's own names count everything
    that the process created, so equal models would give different files."""
    for number, node in enumerate(graph.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    return graph


def _quantized(graph: Any, calibration: Callable[[], Iterable[Batch]]) -> Any:
    """The graph with int8 matrix products, with ranges from the calibration batches."""
    with _nncf() as nncf:
        batches = [arrays(_shapes(graph), batch) for batch in calibration()]
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )


def _with_small_weights(graph: Any, mode: str) -> Any:
    """The graph with its matrices and embedding tables in int8."""
    with _nncf() as nncf:
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode[mode])


@contextmanager
def _nncf() -> Iterator[Any]:
    """The NNCF library, without its progress bars and warnings."""
    os.environ.setdefault("NNCF_CI", "1")  # disables its telemetry
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        nncf = optional("nncf", "openvino")
        nncf.set_log_level(logging.ERROR)
        yield nncf


register(OpenVino())
