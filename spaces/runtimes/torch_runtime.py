"""torch itself: the model as it is, in a lower precision, or with int8 linear layers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as QuantizedLinear
from transformers.pytorch_utils import Conv1D

from paretoformer.spaces.common.instructions import capabilities
from paretoformer.spaces.models.surgery import share
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes.base import Runnable, Runtime, Tools, register

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

INSTRUCTIONS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""CPU capabilities, as torch names them; any one makes the precision fast."""


class TorchRunnable(Runnable):
    """A torch module; its outputs have the dtype of the precision."""

    def __init__(self, model: nn.Module, *, couples_rows: bool = False) -> None:
        self.model = model
        self.couples_rows = couples_rows

    def __call__(self, **inputs: torch.Tensor) -> Any:
        dtype = next(self.model.parameters()).dtype
        return self.model(**{name: _as_float(each, dtype) for name, each in inputs.items()})

    @property
    def generator(self) -> Any:
        return self.model

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return cast(Any, self.model).generate(*args, **kwargs)

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.model)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def peak_bytes(self, inputs: Batch) -> int | None:
        device = next(self.model.parameters()).device
        if device.type != "cuda":
            return None
        with torch.inference_mode():
            self(**inputs)  # allocations of a first call are no activations
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            self(**inputs)
            torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    def save(self, folder: Path) -> None:
        """Writes nothing: the weights are saved with the torch model."""


class Torch(Runtime):
    """float32 means the model as it is, in the dtype of its checkpoint.

    int8 is `torch.ao.quantization.quantize_dynamic`: deprecated in favour of torchao, which would
    be another dependency.
    """

    name = "torch"
    precisions = ("float32", "bfloat16", "float16", "int8")
    rebuilt = True
    generates = True
    tells_peak = True
    summary = "torch, eager; int8: dynamic, linear layers, per channel"
    source = "https://docs.pytorch.org/docs/stable/quantization.html"

    def unavailable(self, precision: str, device: str) -> str:
        if reason := device_unavailable(device):
            return reason
        if precision == "int8" and torch.device(device).type != "cpu":
            return "dynamic int8 runs on a CPU only"
        return slow_precision(precision, device)

    def convert(self, model: nn.Module, precision: str, tools: Tools) -> Runnable:
        self.check(precision, model)
        torch.set_num_threads(tools.threads)
        if precision == "int8":
            return TorchRunnable(quantized(model), couples_rows=True)
        return TorchRunnable(cast_to(model, precision, tools.device))


def cast_to(model: nn.Module, precision: str, device: str) -> nn.Module:
    """The model in a precision, on a device; float32: in its own dtype.

    Only parameters are cast: positions, frequencies and random projections lose too much.
    """
    dtype = DTYPES.get(precision)
    here = next(model.parameters())
    if dtype in (None, here.dtype) and here.device == torch.device(device):
        return share(model).eval()
    moved = copy.deepcopy(model).to(device).eval()
    for parameter in moved.parameters():
        if dtype is not None and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return moved


def in_float32(model: nn.Module) -> nn.Module:
    """A copy that shares float32 weights, and casts others to float32."""
    if next(model.parameters()).dtype == torch.float32:
        return share(model).eval()
    return copy.deepcopy(model).float().eval()


def quantized(model: nn.Module) -> nn.Module:
    """The model with int8 linear layers: weights per channel, activations per batch."""
    copied = in_float32(model)
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if type(child) is Conv1D:
                setattr(module, name, _linear(child))
    with warnings.catch_warnings():
        # Deprecated in favour of torchao; torch says so at every call.
        warnings.simplefilter("ignore")
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        layers = {nn.Linear: per_channel_dynamic_qconfig}
        return cast(nn.Module, quantize_dynamic(copied, layers, inplace=True))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, and of packed int8 weights; a shared tensor counts once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    plain = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return plain + sum(
        _packed_bytes(each) for each in model.modules() if isinstance(each, QuantizedLinear)
    )


def device_unavailable(device: str) -> str:
    """Why torch cannot use a device; empty when it can."""
    kind = torch.device(device).type
    if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()):
        return ""
    return f"torch finds no device {device!r} here"


def slow_precision(precision: str, device: str) -> str:
    """Why a device has no fast arithmetic in a precision; empty when it has."""
    if precision not in DTYPES:
        return ""
    if torch.device(device).type == "cuda":
        slow = precision == "bfloat16" and not torch.cuda.is_bf16_supported(False)
        return "this GPU has no bfloat16 arithmetic" if slow else ""
    has = capabilities()
    if any(has.get(each) for each in INSTRUCTIONS[precision]):
        return ""
    return f"this CPU has no {precision} instructions, without which it is slower than float32"


def _as_float(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _linear(layer: Conv1D) -> nn.Linear:
    """The same layer, stored as (out, in)."""
    weight = layer.weight.detach().T.contiguous()
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), layer.bias
    return linear.train(layer.training)


def _packed_bytes(layer: QuantizedLinear) -> int:
    """One byte per weight; per channel a float32 scale, an int32 zero point and a float32 bias."""
    channels, width = layer.out_features, layer.in_features
    biases = 0 if layer.bias() is None else 4 * channels
    return int(channels * width + 8 * channels + biases)


register(Torch())
