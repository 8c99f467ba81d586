"""What the runtimes that read an exported graph have in common: inputs and outputs by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from paretoformer.spaces.runtimes.base import Batch, Runnable

OPTIONAL = {"attention_mask", "token_type_ids"}
"""Inputs that may be left out, and that a graph may lack."""


class Exported(Runnable):
    """A graph with named inputs and outputs."""

    input_names: Sequence[str]

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Every token is real without `attention_mask`, and of segment 0 without `token_type_ids`.

        Either may be given to a graph that does not use it: one without heads needs no mask.

        Returns an object with the outputs as attributes, float32 tensors on the CPU.

        Raises:
            ValueError: an input that the graph does not have, or the lack of one.
        """
        outputs = self.run(arrays(self.input_names, inputs))
        return SimpleNamespace(**{name: torch.from_numpy(each) for name, each in outputs.items()})

    @abstractmethod
    def run(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Arrays by name -> arrays by name, which nothing else writes to later."""


def arrays(names: Sequence[str], inputs: Batch) -> dict[str, np.ndarray]:
    """The inputs of a graph by name, those that may be left out filled in.

    Raises:
        ValueError: an input that the graph does not have, or the lack of one.
    """
    unknown = sorted(inputs.keys() - set(names) - OPTIONAL)
    if unknown:
        raise ValueError(f"the model was exported for {list(names)}, not {unknown}.")
    return {name: _array(_input(name, inputs)) for name in names}


def _input(name: str, inputs: Batch) -> torch.Tensor:
    if name in inputs:
        return inputs[name]
    tokens = inputs.get("input_ids")
    if tokens is None or name not in OPTIONAL:
        raise ValueError(f"the model needs the input {name!r}.")
    return torch.full_like(tokens, int(name == "attention_mask"))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """As the graph takes it: int64 or float32."""
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    return tensor.detach().to("cpu", dtype).numpy()
