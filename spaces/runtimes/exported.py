"""Shared by runtimes with exported graphs: inputs and outputs by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes.base import Runnable
from paretoformer.spaces.runtimes.cached_graph import KEPT, PAST, POSITIONS, CachedGraph

OPTIONAL = {"attention_mask", "token_type_ids"}
"""Inputs that callers may omit, and that a graph may lack."""
Shapes = Mapping[str, Sequence[int | None]]
"""Shapes of a graph's inputs by name; None: a dynamic size."""


class Exported(Runnable):
    shapes: Shapes

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Defaults: `attention_mask` marks every token as real, `token_type_ids` as segment 0.

        Either may be passed to a graph that does not use it: one without heads needs no mask. A
        graph with a cache starts with an empty one.

        Returns an object with the outputs as attributes, float32 tensors on the CPU.

        Raises:
            ValueError: an unknown input, or a missing one.
        """
        outputs = self.run(self.feed(inputs))
        return SimpleNamespace(**{name: torch.from_numpy(each) for name, each in outputs.items()})

    def feed(self, inputs: Batch) -> dict[str, np.ndarray]:
        """The inputs of the graph by name; raises as a call."""
        return arrays(self.shapes, inputs)

    @property
    def generator(self) -> Any:
        layers = sum(name.startswith(PAST) for name in self.shapes) // 2
        return CachedGraph(self, layers, self.origin) if layers else None

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the torch model.

        Raises:
            ValueError: it is no language model from `compress` or `load_compressed`.
        """
        generator = self.generator
        if generator is None or self.origin is None:
            raise ValueError("this does not generate: it is no compressed language model.")
        return generator.generate(*args, **kwargs)

    @abstractmethod
    def run(self, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Arrays by name -> arrays by name, which are never overwritten later."""


def arrays(shapes: Shapes, inputs: Batch) -> dict[str, np.ndarray]:
    """The inputs of a graph by name, omitted ones filled in.

    Raises:
        ValueError: an unknown input, or a missing one.
    """
    cached = any(name.startswith(PAST) for name in shapes)
    left_out = {"attention_mask"} if cached else OPTIONAL  # segments change causal outputs
    if unknown := sorted(inputs.keys() - shapes.keys() - left_out):
        raise ValueError(f"the model was exported for {list(shapes)}, not {unknown}.")
    return {name: _array(_input(name, shape, inputs)) for name, shape in shapes.items()}


def _input(name: str, shape: Sequence[int | None], inputs: Batch) -> torch.Tensor:
    if name in inputs:
        return inputs[name]
    tokens = inputs.get("input_ids")
    if tokens is None:
        raise ValueError(f"the model needs the input {name!r}.")
    rows, length = tokens.shape
    before = max((each.shape[2] for key, each in inputs.items() if key.startswith(PAST)), default=0)
    if name == "attention_mask":
        return tokens.new_ones(rows, before + length)
    if name == "token_type_ids":
        return torch.zeros_like(tokens)
    if name == POSITIONS:
        return torch.arange(before, before + length).expand(rows, length)
    if name == KEPT:
        return torch.arange(length)
    if name.startswith(PAST):
        _, heads, _, width = shape
        return torch.zeros(rows, int(heads or 0), 0, int(width or 0))
    raise ValueError(f"the model needs the input {name!r}.")


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Cast to int64 or float32, as the graph expects."""
    dtype = torch.float32 if tensor.is_floating_point() else torch.int64
    return tensor.detach().to("cpu", dtype).numpy()
