"""Layerwise: run batches through a model one layer at a time, with access to the residual stream.

A layer adds the outputs of its attention block and then of its feed-forward block to the residual
stream. A repair reads the stream after both, changes the layer, and continues with the changed
output: no layer runs more than one and a half times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces.models.families import Block, blocks_of, family_of
from paretoformer.spaces.models.tokens import Batch


class Part(IntEnum):
    """The two blocks of a layer, in order."""

    ATTENTION = 0
    FEED_FORWARD = 1

    def projection(self, block: Block) -> nn.Module:
        """The output projection of the heads, or of the neurons."""
        return block.output if self is Part.ATTENTION else block.feed_forward_output

    def sum_norm(self, block: Block) -> str:
        """The path of the LayerNorm that reads the sum; empty where the layer returns the sum."""
        family = block.family
        return family.attention_norm if self is Part.ATTENTION else family.output_norm


@dataclass(frozen=True)
class Seen:
    """One batch. inputs: (batch, length, inputs) of the projection; width 0 for a constant one.
    total: (batch, length, hidden), the residual stream after it."""

    inputs: torch.Tensor
    total: torch.Tensor


class _Stop(Exception):
    """Stops a forward whose remaining part is not needed."""


def without_cache(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """A batch as arguments of a model, with the key-value cache off."""
    more = {"use_cache": False} if family_of(cast(Any, model).config).causal else {}
    return {**batch, **more}


class Layerwise:
    """Batches at the input of one layer; `advance` moves them to the next.

    hidden: (batch, length, hidden) of each batch.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        calls = [_calls(model, batch) for batch in batches]
        self.hidden = [hidden for hidden, _ in calls]
        self._arguments = [arguments for _, arguments in calls]

    def of(self, block: Block, part: Part) -> Iterator[Seen]:
        """Each batch after one block of the layer."""
        for index in range(len(self.hidden)):
            yield self._watch(block, part, index)

    def advance(self, block: Block, totals: Sequence[torch.Tensor]) -> None:
        """Continue after a layer, whose last residual streams are `totals`."""
        norm = block.family.output_norm
        self.hidden = [block.get(norm)(each) if norm else each for each in totals]

    def _watch(self, block: Block, part: Part, index: int) -> Seen:
        hidden, (args, kwargs) = self.hidden[index], self._arguments[index][block.kind]
        found: dict[str, torch.Tensor] = {}

        def keep_inputs(module: nn.Module, arguments: Any) -> None:
            found["inputs"] = arguments[0]

        def keep_total(module: nn.Module, arguments: Any) -> None:
            found["total"] = arguments[0]
            raise _Stop

        with ExitStack() as hooks, suppress(_Stop):
            hooks.enter_context(part.projection(block).register_forward_pre_hook(keep_inputs))
            if norm := part.sum_norm(block):
                hooks.enter_context(block.get(norm).register_forward_pre_hook(keep_total))
            output = block.layer(hidden, *args, **kwargs)
            found["total"] = output[0] if isinstance(output, tuple) else output
        return Seen(found["inputs"], found["total"])


def _calls(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, tuple[Any, Any]]]:
    """The first layer's hidden states, and each kind of layers' other arguments."""
    first: dict[str, nn.Module] = {}
    for block in blocks_of(model):
        first.setdefault(block.kind, block.layer)
    hidden: list[torch.Tensor] = []
    found: dict[str, tuple[Any, Any]] = {}

    def keep(kind: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            named = dict(kwargs)
            before, *others = args or [named.pop("hidden_states")]
            hidden.append(before)
            found[kind] = others, named
            if len(found) == len(first):
                raise _Stop

        return hook

    with ExitStack() as hooks, suppress(_Stop):
        for kind, layer in first.items():
            hook = layer.register_forward_pre_hook(keep(kind), with_kwargs=True)
            hooks.enter_context(hook)
        model(**without_cache(model, batch))
    return hidden[0], found


@contextmanager
def watched_sums(model: nn.Module) -> Iterator[dict[tuple[int, Part], torch.Tensor]]:
    """In this context, each forward of the whole model records its residual streams."""
    found: dict[tuple[int, Part], torch.Tensor] = {}

    def keep_input(key: tuple[int, Part]) -> Any:
        def hook(module: nn.Module, arguments: Any) -> None:
            found[key] = arguments[0]

        return hook

    def keep_output(key: tuple[int, Part]) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            found[key] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as hooks:
        for (layer, block), part in product(enumerate(blocks_of(model)), Part):
            key = (layer, part)
            if norm := part.sum_norm(block):
                hook = block.get(norm).register_forward_pre_hook(keep_input(key))
            else:
                hook = block.layer.register_forward_hook(keep_output(key))
            hooks.enter_context(hook)
        yield found
