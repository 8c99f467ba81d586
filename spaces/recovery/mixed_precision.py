"""Mixed precision of a training step: bfloat16 where it is faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from paretoformer.spaces.runtimes.torch_runtime import slow_precision


@contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """bfloat16 where the device multiplies it faster than float32; attention on a CPU in float32.

    The gradient of torch's attention takes 5 times as long in bfloat16 as in float32 at 15 tokens,
    and 3 times at 64 (torch 2.13, one core of an EPYC with AVX-512).
    """
    if slow_precision("bfloat16", device.type):
        yield
        return
    attention = Float32Attention() if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16), attention:
        yield


class Float32Attention(TorchFunctionMode):
    """Calls attention outside of autocast, in float32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **named)
        with torch.autocast("cpu", enabled=False):
            return function(
                *map(_in_float32, args), **{key: _in_float32(each) for key, each in named.items()}
            )


def _in_float32(value: Any) -> Any:
    is_real = isinstance(value, torch.Tensor) and value.is_floating_point()  # masks may not be
    return value.float() if is_real else value
