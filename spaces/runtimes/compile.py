"""torch.compile: the model as machine code that torch's Inductor generates for this machine."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import torch
from torch import nn

from paretoformer.spaces.runtimes.base import Batch, Runnable, Runtime, Tools, register
from paretoformer.spaces.runtimes.example import example_for
from paretoformer.spaces.runtimes.torch_runtime import (
    TorchRunnable,
    cast_to,
    device_unavailable,
    slow_precision,
)

COMPILERS = ("g++", "clang++", "c++")


class CompiledRunnable(TorchRunnable):
    """A compiled torch module.

    It runs in inference mode, always: in another mode torch would compile it once more.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__(model)
        # Keeps the calls to the GPU that a shape makes as one graph, and replays it.
        mode = "reduce-overhead" if torch.device(device).type == "cuda" else "default"
        self._compiled = torch.compile(self._forward, dynamic=True, mode=mode)

    def _forward(self, **inputs: torch.Tensor) -> Any:
        return TorchRunnable.__call__(self, **inputs)

    def __call__(self, **inputs: torch.Tensor) -> Any:
        with torch.inference_mode():
            # So would it for a view of a larger tensor, and for one made outside this mode.
            own = {name: _own(each) for name, each in inputs.items()}
            return self._compiled(**own)

    @property
    def generator(self) -> Any:
        """None: a cache that grows would be compiled anew for each length."""
        return None

    def peak_bytes(self, inputs: Batch) -> int | None:
        """None: the generated code has an allocator of its own on a GPU."""
        return None


class Compile(Runtime):
    """Measured: MiniLM (6 layers, hidden 384) on 2 CPU cores compiles in 41 s in a new process, in
    about 20 s once the compiler is warm; a third of that serves batches of one row, which torch
    compiles separately. Then any batch and length runs without compiling again. It runs 1.1x as
    fast as eager, at 64 and at 512 tokens; Inductor's `freezing` made no difference. Every
    attention mechanism compiles, but those of many small operators take minutes.
    """

    name = "compile"
    precisions = ("float32", "bfloat16", "float16")
    rebuilt = True
    starts_slowly = True
    summary = "torch.compile with Inductor, one compilation for every length"
    source = "https://docs.pytorch.org/docs/stable/torch.compiler.html"

    def unavailable(self, precision: str, device: str) -> str:
        if reason := device_unavailable(device):
            return reason
        if torch.device(device).type != "cpu":
            return slow_precision(precision, device)
        if precision == "float16":
            return "float16 is compiled for a GPU only"
        if not any(shutil.which(each) for each in COMPILERS):
            return "torch.compile needs a C++ compiler such as g++"
        return slow_precision(precision, device)

    def convert(self, model: nn.Module, precision: str, tools: Tools) -> Runnable:
        self.check(precision, model)
        torch.set_num_threads(tools.threads)  # the generated code has this number in it
        prepared = cast_to(model, precision, tools.device)
        example = {
            name: each.to(tools.device) for name, each in example_for(model, tools.example).items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about itself
            runnable = CompiledRunnable(prepared, tools.device)
            runnable(**example)
            runnable(**{name: each[:1] for name, each in example.items()})
        return runnable


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


register(Compile())
