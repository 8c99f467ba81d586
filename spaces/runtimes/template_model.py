"""The torch side of a graph template: a model of few layers with unique sizes.

One layer represents all of its kind, and another one the last, which differs where it is computed
for the first token alone. Most families have one kind of layers; ModernBERT's are global or local,
and its first one has no norm.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces.attention import Attention
from paretoformer.spaces.models.families import (
    Block,
    blocks_of,
    family_of,
    head_dim_of,
    layers_of,
    neurons_of,
    shape_of,
)
from paretoformer.spaces.models.pooled_head import FirstTokenNorm, read_first
from paretoformer.spaces.models.surgery import (
    ConstantOutput,
    HeadlessAttention,
    keep_heads,
    keep_neurons,
    matrix_of,
    replace_projection,
    set_layers,
    share,
)
from paretoformer.spaces.models.tokens import Batch

PRIMES = (17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107)
"""Numbers of heads and neurons that models do not have, larger than axis counts and paddings."""


@dataclass(frozen=True)
class Units:
    """How the numbers of heads and neurons of a layer determine the sizes of its parts.

    heads: per group that shares a key and a value. width: of a group's outputs.
    rows: of each projection before the heads, per group. fed: of each before the neurons, per
    neuron.
    """

    heads: int
    width: int
    rows: tuple[int, ...]
    fed: tuple[int, ...]

    @classmethod
    def of(cls, config: Any, block: Block) -> Units:
        """For a block that has heads."""
        heads = int(config.num_attention_heads) // shape_of(config)[1]
        width = heads * head_dim_of(config)
        count = matrix_of(block.output, block.family.output).shape[1] // width
        rows = [len(matrix_of(block.get(path), path)) for path in block.family.inputs]
        fed = tuple(block.family.feed_forward.inputs.values())
        return cls(heads, width, tuple(each // count for each in rows), fed)

    def count(self, block: Block) -> int:
        if isinstance(block.attention, HeadlessAttention):
            return 0
        return matrix_of(block.output, block.family.output).shape[1] // self.width

    def sizes(self, count: int, neurons: int) -> tuple[int, ...]:
        """All sizes that a graph may contain for a layer with `count` groups and `neurons`."""
        each_group = (1, self.heads, self.width, 2 * self.width, *self.rows)
        return (
            *(count * size for size in each_group),
            *(neurons * size for size in (1, *self.fed)),
        )


def neurons_in(block: Block) -> int:
    if isinstance(block.feed_forward_output, ConstantOutput):
        return 0
    return matrix_of(block.feed_forward_output, block.family.feed_forward.output).shape[1]


def reads_first(block: Block) -> bool:
    return isinstance(block.get(block.family.attention_norm), FirstTokenNorm)


def kind_of(block: Block) -> str:
    """Layers of one kind have the same graph, except for their cuts and weights."""
    absent = [name for name, each in block.layer.named_children() if isinstance(each, nn.Identity)]
    return " ".join((block.kind, *absent))


def unsuitable(model: nn.Module) -> str:
    """Why few layers cannot represent those of a model; empty when they can."""
    if any(isinstance(each, Attention) for each in model.modules()):
        return "it has attention mechanisms of its own"
    if len({type(block.layer) for block in blocks_of(model)}) > 1:
        return "its layers are of several classes"
    if family_of(model.config).score_bias:
        return "its heads have biases of their own"
    if getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        return "each of its layers scales its scores by its own number"
    return ""


def kind(model: nn.Module, batch: Batch) -> str:
    """Equal texts: equal graphs, except for the number of layers, their cuts and all weights."""
    config = copy.deepcopy(cast(Any, model).config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = sorted(set(config.layer_types))
    blocks = blocks_of(model)
    layers = {id(each) for block in blocks for each in block.layer.modules()}
    rest = [(name, each) for name, each in model.named_modules() if id(each) not in layers]
    facts = [
        type(model).__qualname__,
        config.to_dict(),
        [(name, tuple(each.shape)) for name, each in batch.items()],
        reads_first(blocks[-1]),
        sorted({*map(kind_of, blocks)}),
        kind_of(blocks[-1]),
        [
            (name, type(each).__qualname__, *(p.shape for p in each.parameters(recurse=False)))
            for name, each in rest
        ],
        [
            (name, buffer.shape, buffer.double().sum().item(), buffer.flatten()[:8].tolist())
            for name, each in rest
            for buffer in each.buffers(recurse=False)
        ],
    ]
    return json.dumps(facts, sort_keys=True, default=str)


def complete_layers(model: nn.Module) -> Mapping[str, int]:
    """Kind -> its first layer that has heads and neurons and computes every token; empty if a kind
    has none."""
    found: dict[str, int] = {}
    for index, block in enumerate(blocks_of(model)):
        headless = isinstance(block.attention, HeadlessAttention)
        if not headless and neurons_in(block) and not reads_first(block):
            found.setdefault(kind_of(block), index)
    return found if found.keys() >= {*map(kind_of, blocks_of(model))} else {}


def few_layers(model: nn.Module, sources: Mapping[str, int]) -> nn.Module:
    """A copy with random weights and a layer of each kind, then another last one, with sizes that
    occur nowhere else in it.

    sources: as from `complete_layers`.

    Raises:
        ValueError: there are no such sizes.
    """
    config = cast(Any, model).config
    last = sources[kind_of(blocks_of(model)[-1])]
    units = Units.of(config, blocks_of(model)[last])
    copied = _with_layers(model, [*sources.values(), last])
    random = torch.Generator().manual_seed(0)
    _randomise(copied, random)
    blocks = blocks_of(copied)
    sizes = _free_sizes(_numbers(config), units, len(blocks))
    for block, (count, neurons) in zip(blocks, sizes, strict=True):
        _resize(block, units, count, neurons, random)
    if reads_first(blocks_of(model)[-1]):
        read_first(copied)
    return copied.eval()


def other_cuts(model: nn.Module, sources: Mapping[str, int]) -> nn.Module:
    """As `few_layers`, but with layers of other sizes, of each kind some without heads and some
    without neurons, and a complete last one: a template's test case."""
    last = sources[kind_of(blocks_of(model)[-1])]
    units = Units.of(cast(Any, model).config, blocks_of(model)[last])
    every = ((2, 5), (0, 3), (3, 0), (0, 0))
    copied = _with_layers(model, [*(source for source in sources.values() for _ in every), last])
    cuts = [*every * len(sources), (4, 6)]
    random = torch.Generator().manual_seed(1)
    _randomise(copied, random)
    for block, (count, neurons) in zip(blocks_of(copied), cuts, strict=True):
        _resize(block, units, max(count, 1), max(neurons, 1), random)
        keep_heads(block, tuple(range(count)), max(count, 1))
        keep_neurons(block, tuple(range(neurons)), max(neurons, 1))
    if reads_first(blocks_of(model)[-1]):
        read_first(copied)
    return copied.eval()


def _with_layers(model: nn.Module, sources: Sequence[int]) -> nn.Module:
    """A copy with copies of these layers."""
    copied = share(model)
    layers = layers_of(copied)
    set_layers(copied, [copy.deepcopy(layers[source]) for source in sources], sources)
    return copied


def _randomise(model: nn.Module, random: torch.Generator) -> None:
    """Give every parameter unique values; shared tensors stay shared."""
    new = {
        id(each): nn.Parameter(_values(*each.shape, random=random)) for each in model.parameters()
    }
    for module in model.modules():
        for name, each in list(module.named_parameters(recurse=False)):
            setattr(module, name, new[id(each)])


def _values(*shape: int, random: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=random) / 8


def _resize(block: Block, units: Units, count: int, neurons: int, random: torch.Generator) -> None:
    """Give a complete layer these numbers of groups and neurons, with random weights."""
    family = block.family
    for path, rows in zip(family.inputs, units.rows, strict=True):
        _projection(block, path, random, out=count * rows)
    _projection(block, family.output, random, inside=count * units.width)
    for path, parts in family.feed_forward.inputs.items():
        _projection(block, path, random, out=parts * neurons)
    _projection(block, family.feed_forward.output, random, inside=neurons)
    for name in family.heads:
        setattr(block.attention, name, count)
    for name in family.width:
        setattr(block.attention, name, count * units.width)


def _projection(
    block: Block, path: str, random: torch.Generator, out: int = 0, inside: int = 0
) -> None:
    projection = block.get(path)
    rows, columns = matrix_of(projection, path).shape
    weight = _values(out or rows, inside or columns, random=random)
    biased = cast(Any, projection).bias is not None
    bias = _values(out or rows, random=random) if biased else None
    replace_projection(block, path, weight, bias)


def _free_sizes(taken: set[int], units: Units, layers: int) -> list[tuple[int, int]]:
    """(groups, neurons) of these layers, whose sizes all differ, also from the taken ones.

    Raises:
        ValueError: there are none.
    """
    found, taken = list[tuple[int, int]](), set(taken)
    for count, neurons in itertools.pairwise(PRIMES):
        sizes = units.sizes(count, neurons)
        mixed, fed = units.sizes(count, 0), units.sizes(0, neurons)
        if taken.isdisjoint(sizes) and {*mixed}.isdisjoint({*fed} - {0}):
            taken.update(sizes)
            found.append((count, neurons))
            if len(found) == layers:
                return found
    raise ValueError("there are no sizes that no other part of the model has.")


def _numbers(config: Any) -> set[int]:
    """Sizes of the model's other parts."""
    values = json.loads(json.dumps(config.to_dict(), default=str))
    return {*_integers(values), head_dim_of(config), neurons_of(config)}


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_integers, value))
    elif isinstance(value, int):
        yield value
