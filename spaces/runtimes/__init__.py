"""Runtimes, one file each; importing this package registers them in this order."""

# isort: off
from paretoformer.spaces.runtimes import torch_runtime
from paretoformer.spaces.runtimes import compile
from paretoformer.spaces.runtimes import onnxruntime
from paretoformer.spaces.runtimes import openvino

# isort: on
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes.base import (
    Runnable,
    Runtime,
    Tools,
    in_every_precision,
    names,
    parse,
    register,
    runtimes,
)

__all__ = [
    "Batch",
    "Runnable",
    "Runtime",
    "Tools",
    "compile",
    "in_every_precision",
    "names",
    "onnxruntime",
    "openvino",
    "parse",
    "register",
    "runtimes",
    "torch_runtime",
]
