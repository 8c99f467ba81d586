"""Surgery: rebuild a model as a candidate says, heads gone for real.

The original is left as it was; the rebuilt model shares every tensor with it that did not change.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces import attention
from paretoformer.spaces.attention.interface import IMPLEMENTATION, MECHANISM
from paretoformer.spaces.candidate import FULL, AttentionChoice, Candidate
from paretoformer.spaces.families import Block, blocks_of, shape_of

CANDIDATE = "paretoformer_candidate"
"""The attribute of a rebuilt model that says what it was rebuilt as."""


@dataclass(frozen=True)
class Applied:
    """A rebuilt model, and what was done to it."""

    model: nn.Module
    removed_heads: tuple[int, ...]
    """Of each layer, how many heads went."""
    swapped: dict[int, AttentionChoice]
    """Layer -> its mechanism, where that is no longer `full`."""
    parameters_before: int
    parameters_after: int

    @property
    def changed(self) -> bool:
        """False when the candidate is the dense model."""
        return bool(self.swapped) or any(self.removed_heads)


class ConstantOutput(nn.Module):
    """The output projection of a layer without heads: what is left of it is its bias."""

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__()
        self.bias = projection.bias
        self.width = projection.out_features

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, length, anything) -> (batch, length, out_features)."""
        if self.bias is None:
            return hidden.new_zeros(*hidden.shape[:-1], self.width)
        # A tensor of its own: what follows may add to it in place.
        return self.bias.expand(*hidden.shape[:-1], self.width).clone()


class HeadlessAttention(nn.Module):
    """An attention block without heads; computes nothing but what its output projection adds."""

    def __init__(self, inner: dict[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.inner = tuple(inner or ())
        for name, module in (inner or {}).items():
            self.add_module(name, module)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        """(batch, length, hidden) -> the constant, or an empty (batch, length, 0)."""
        output = hidden_states[..., :0]
        for name in self.inner:
            output = getattr(self, name)(output)
        return output, None


def apply(candidate: Candidate, model: nn.Module) -> Applied:
    """Rebuild `model` as `candidate` says; `model` itself is not changed.

    Raises:
        ValueError: the family is not supported, the candidate has another number of layers or
            heads than the model, or the model was compressed already.
    """
    blocks_of(model)  # refuses an unsupported family before anything is copied
    expected = shape_of(model.config)
    got = (candidate.heads.layers, candidate.heads.heads)
    if got != expected:
        raise ValueError(
            f"the candidate has (layers, heads) = {got}, but the model has {expected}."
        )
    if hasattr(model, CANDIDATE) and not getattr(model, CANDIDATE).is_dense:
        raise ValueError("the model was compressed already: apply candidates to the original.")

    rebuilt = _share(model)
    swaps = any(choice != FULL for choice in candidate.attention)
    for layer, block in enumerate(blocks_of(rebuilt)):
        _prune(block, candidate.heads.indices(layer), candidate.heads.heads)
        if swaps and candidate.heads.counts[layer]:
            block.attention.add_module(MECHANISM, attention.build(candidate.attention[layer]))
    if swaps:
        cast(Any, rebuilt).set_attn_implementation(IMPLEMENTATION)
    setattr(rebuilt, CANDIDATE, candidate)
    heads = candidate.heads
    return Applied(
        model=rebuilt,
        removed_heads=tuple(heads.heads - count for count in heads.counts),
        swapped={i: choice for i, choice in enumerate(candidate.attention) if choice != FULL},
        parameters_before=count_parameters(model),
        parameters_after=count_parameters(rebuilt),
    )


def count_parameters(model: nn.Module) -> int:
    """Numbers in the model's parameters; a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _share(model: nn.Module) -> nn.Module:
    """A copy of the modules around the same tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})


def _prune(block: Block, kept: tuple[int, ...], heads: int) -> None:
    """Cut one attention block down to the kept heads."""
    if len(kept) == heads:
        return
    if not kept:
        _behead(block)
        return
    family = block.family
    columns = _columns(kept, _linear(block, family.output).in_features // heads)
    for path in (family.query, family.key, family.value):
        linear = _linear(block, path)
        bias = None if linear.bias is None else linear.bias[columns]
        block.set(path, _resized(linear, linear.weight[columns], bias))
    output = _linear(block, family.output)
    block.set(family.output, _resized(output, output.weight[:, columns], output.bias))
    for name in family.heads:
        setattr(block.attention, name, len(kept))
    for name in family.width:
        setattr(block.attention, name, len(columns))


def _behead(block: Block) -> None:
    """Leave of an attention block only what its output projection adds to zeros."""
    family = block.family
    constant = ConstantOutput(_linear(block, family.output))
    inside = family.output.removeprefix(f"{family.attention}.")
    if inside == family.output:
        block.set(family.attention, HeadlessAttention())
        block.set(family.output, constant)
    else:
        block.set(family.attention, HeadlessAttention({inside: constant}))


def _columns(kept: tuple[int, ...], head_dim: int) -> torch.Tensor:
    """The positions of the kept heads in the concatenation of all heads."""
    starts = torch.tensor(kept)[:, None] * head_dim
    return (starts + torch.arange(head_dim)).flatten()


def _linear(block: Block, path: str) -> nn.Linear:
    module = block.get(path)
    if type(module) is not nn.Linear:
        raise ValueError(
            f"{path} is a {type(module).__name__}, but surgery cuts plain torch.nn.Linear layers: "
            "merge adapters and compress before quantising."
        )
    return module


def _resized(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A layer with these tensors, otherwise like `linear`."""
    resized = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    trainable = linear.weight.requires_grad
    resized.weight = nn.Parameter(weight.detach().clone(), requires_grad=trainable)
    if bias is not None:
        # An untouched bias keeps its identity, so that it stays shared with the original.
        if not isinstance(bias, nn.Parameter):
            bias = nn.Parameter(bias.detach().clone(), requires_grad=trainable)
        resized.bias = bias
    return resized.train(linear.training)
