"""Surgery: cut a model in place, so that what is removed is gone.

It works on a copy that `share` made, which holds the original's own tensors until they change: the
original is left as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache
from transformers.pytorch_utils import Conv1D

from paretoformer.spaces import attention
from paretoformer.spaces.attention.interface import IMPLEMENTATION, MECHANISM
from paretoformer.spaces.choice import FULL, AttentionChoice
from paretoformer.spaces.families import Block, blocks_of, head_dim_of


class ConstantOutput(nn.Module):
    """The output projection of a layer without heads: what is left of it is its bias."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        bias = cast(nn.Parameter | None, projection.bias)
        self.bias = bias
        self.width = _weight(projection).shape[0]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, length, anything) -> (batch, length, out_features)."""
        if self.bias is None:
            return hidden.new_zeros(*hidden.shape[:-1], self.width)
        # A tensor of its own: what follows may add to it in place.
        return self.bias.expand(*hidden.shape[:-1], self.width).clone()


class HeadlessAttention(nn.Module):
    """An attention block without heads; computes nothing but what its output projection adds.

    In a causal model it still counts the tokens in a key-value cache, for the model reads the
    positions of new tokens off the cache of its first layer.
    """

    def __init__(self, inner: dict[str, nn.Module], layer: int | None) -> None:
        super().__init__()
        self.inner = tuple(inner)
        self.layer_idx = layer
        for name, module in inner.items():
            self.add_module(name, module)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        """(batch, length, hidden) -> the constant, or an empty (batch, length, 0)."""
        if self.layer_idx is not None:
            # transformers 5.24 renamed the argument.
            caches = (each for each in (*args, *kwargs.values()) if isinstance(each, Cache))
            nothing = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
            for cache in caches:
                cache.update(nothing, nothing, self.layer_idx)
        output = hidden_states[..., :0]
        for name in self.inner:
            output = getattr(self, name)(output)
        return output, None


def swap_attention(model: nn.Module, choices: Sequence[AttentionChoice]) -> None:
    """Give each layer that has heads its mechanism; a model that keeps `full` keeps `sdpa`.

    choices: one for each layer of the model.

    Raises:
        ValueError: a mechanism is unknown, or its parameters are not its own.
    """
    if all(choice == FULL for choice in choices):
        return
    config = cast(Any, model).config
    device = next(model.parameters()).device
    for block, choice in zip(blocks_of(model), choices, strict=True):
        if not isinstance(block.attention, HeadlessAttention):
            mechanism = attention.build(choice, head_dim_of(config))
            block.attention.add_module(MECHANISM, mechanism.to(device))
    cast(Any, model).set_attn_implementation(IMPLEMENTATION)


def count_parameters(model: nn.Module) -> int:
    """Numbers in the model's parameters; a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def share(model: nn.Module) -> nn.Module:
    """A copy of the modules around the same tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})


def keep_heads(block: Block, kept: tuple[int, ...], heads: int) -> None:
    """Cut one attention block down to the kept heads.

    heads: of the dense block; where they form groups, the groups.
    """
    if len(kept) == heads:
        return
    if not kept:
        _behead(block)
        return
    family = block.family
    for path, parts in family.inputs.items():
        projection = block.get(path)
        weight = _weight(projection, path)
        rows = _of_heads(kept, heads, len(weight), parts)
        bias = cast(torch.Tensor | None, projection.bias)
        bias = None if bias is None else bias[rows]
        block.set(path, _resized(projection, weight[rows], bias))
    output = block.output
    weight = _weight(output, family.output)
    columns = _of_heads(kept, heads, weight.shape[1])
    bias = cast(torch.Tensor | None, output.bias)
    block.set(family.output, _resized(output, weight[:, columns], bias))
    for name in family.heads:
        setattr(block.attention, name, len(kept))
    for name in family.width:
        setattr(block.attention, name, len(columns))


def _behead(block: Block) -> None:
    """Leave of an attention block only what its output projection adds to zeros."""
    family = block.family
    _weight(block.output, family.output)
    constant = ConstantOutput(block.output)
    layer = getattr(block.attention, "layer_idx", None) if family.causal else None
    inside = family.output.removeprefix(f"{family.attention}.")
    if inside == family.output:
        block.set(family.attention, HeadlessAttention({}, layer))
        block.set(family.output, constant)
    else:
        block.set(family.attention, HeadlessAttention({inside: constant}, layer))


def _of_heads(kept: tuple[int, ...], heads: int, width: int, parts: int = 1) -> torch.Tensor:
    """The positions of the kept heads in `parts` times all heads side by side, `width` in all."""
    positions = torch.arange(width).view(parts, heads, -1)
    return positions[:, list(kept)].flatten()


def _weight(projection: nn.Module, path: str = "") -> torch.Tensor:
    """The weight of a projection as (out_features, in_features).

    Raises:
        ValueError: it is no plain projection.
    """
    if type(projection) is nn.Linear:
        return projection.weight
    if type(projection) is Conv1D:  # transformers' own: a linear layer, stored transposed
        return projection.weight.T
    raise ValueError(
        f"{path} is a {type(projection).__name__}, but surgery cuts plain torch.nn.Linear layers: "
        "merge adapters and compress before quantising."
    )


def _resized(projection: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """A layer with these tensors, otherwise like `projection`.

    weight: (out_features, in_features).
    """
    resized: nn.Module
    trainable = cast(nn.Parameter, projection.weight).requires_grad
    if isinstance(projection, Conv1D):
        with torch.device("meta"):
            resized = Conv1D(*weight.shape)
        weight = weight.T
    else:
        resized = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    resized.weight = nn.Parameter(
        weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=trainable
    )
    if bias is not None:
        # An untouched bias keeps its identity, so that it stays shared with the original.
        if not isinstance(bias, nn.Parameter):
            bias = nn.Parameter(bias.detach().clone(), requires_grad=trainable)
        resized.bias = bias
    return resized.train(projection.training)
