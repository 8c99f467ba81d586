"""Surgery: cut a model in place, so that removed parts no longer exist.

It works on a copy from `share`, which holds the original's own tensors until they change; the
original is not changed.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache
from transformers.pytorch_utils import Conv1D

from paretoformer.spaces import attention
from paretoformer.spaces.attention.interface import (
    IMPLEMENTATION,
    MECHANISM,
    before_attention,
)
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice
from paretoformer.spaces.models.families import (
    Block,
    blocks_of,
    family_of,
    head_dim_of,
    layers_of,
)


class ConstantOutput(nn.Module):
    """The output projection of a block without heads or neurons; only its bias remains."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        bias = cast(nn.Parameter | None, projection.bias)
        self.bias = bias
        self.width = matrix_of(projection).shape[0]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, length, anything) -> (batch, length, out_features)."""
        if self.bias is None:
            return hidden.new_zeros(*hidden.shape[:-1], self.width)
        # A copy, because the caller may add to it in place.
        return self.bias.expand(*hidden.shape[:-1], self.width).clone()


class HeadlessAttention(nn.Module):
    """An attention block without heads; returns only its output projection's bias.

    In a causal model it still counts tokens in the key-value cache, because the model reads the
    positions of new tokens from its first layer's cache.
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
            batch, length, _ = hidden_states.shape  # `len` would fix the size in an exported graph
            nothing = hidden_states.new_zeros(batch, 1, length, 1)
            for cache in caches:
                cache.update(nothing, nothing, self.layer_idx)
        output = hidden_states[..., :0]
        for name in self.inner:
            output = getattr(self, name)(output)
        return output, None


class NoNeurons(nn.Module):
    """An input projection of a feed-forward block without neurons."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, length, hidden) -> an empty (batch, length, 0)."""
        return hidden[..., :0]


def swap_attention(model: nn.Module, choices: Sequence[AttentionChoice]) -> None:
    """Set the mechanism of each layer that has heads; a model with only `full` keeps `sdpa`.

    choices: one for each layer of the model.

    Raises:
        ValueError: an unknown mechanism, wrong parameters, or a family with full attention only.
    """
    if all(choice == FULL for choice in choices):
        return
    config = cast(Any, model).config
    if reason := family_of(config).only_full:
        raise ValueError(f"{config.model_type!r} has full attention only: {reason}.")
    device = next(model.parameters()).device
    generates = bool(getattr(model, "can_generate", lambda: False)())
    for block, choice in zip(blocks_of(model), choices, strict=True):
        if not isinstance(block.attention, HeadlessAttention):
            mechanism = attention.build(choice, head_dim_of(config))
            block.attention.add_module(MECHANISM, mechanism.to(device))
            if generates:
                block.attention.register_forward_pre_hook(before_attention, with_kwargs=True)
    cast(Any, model).set_attn_implementation(IMPLEMENTATION)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def share(model: nn.Module) -> nn.Module:
    """A copy of the modules around the same tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})


def keep_heads(block: Block, kept: tuple[int, ...], heads: int) -> None:
    """Cut an attention block down to the kept heads, in place.

    heads: of the dense block; groups where they form groups.

    Raises:
        ValueError: a projection is no plain linear layer.
    """
    if len(kept) == heads:
        return
    if not kept:
        _remove_all_heads(block)
        return
    family = block.family
    width = _keep_units(block, family.inputs, family.output, kept, heads)
    for name in family.heads:
        setattr(block.attention, name, len(kept))
    for name in family.width:
        setattr(block.attention, name, width)
    if family.score_bias:
        own = _OwnBias(family.score_bias, kept)
        block.attention.register_forward_pre_hook(own, with_kwargs=True)


@dataclass(frozen=True)
class _OwnBias:
    """Forward pre-hook of an attention module: of a bias for all heads, the part of the kept ones.

    name: the module's argument with the bias, (batch, heads, queries, keys).
    """

    name: str
    kept: tuple[int, ...]

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        if call.arguments.get(self.name) is not None:
            call.arguments[self.name] = call.arguments[self.name][:, list(self.kept)]
        return call.args, call.kwargs


def keep_neurons(block: Block, kept: tuple[int, ...], neurons: int) -> None:
    """Cut a feed-forward block down to the kept neurons, in place.

    Without neurons it returns only its output projection's bias. The residual connection,
    normalisation and dropout stay.

    neurons: of the dense block.

    Raises:
        ValueError: the block has another number of neurons, or a projection is no plain linear
            layer.
    """
    if len(kept) == neurons:
        return
    paths = block.family.feed_forward
    for path in paths.inputs:
        matrix_of(block.get(path), path)
    width = matrix_of(block.feed_forward_output, paths.output).shape[1]
    if width != neurons:
        raise ValueError(f"the block should have {neurons} neurons, but has {width}.")
    if kept:
        _keep_units(block, paths.inputs, paths.output, kept, neurons)
        return
    for path in paths.inputs:
        block.set(path, NoNeurons())
    block.set(paths.output, ConstantOutput(block.feed_forward_output))


def keep_layers(model: nn.Module, kept: Sequence[bool]) -> None:
    """Remove layers from a model, in place, and renumber the others.

    In a post-norm family, a kept layer takes the output LayerNorm of the last of the removed layers
    that directly follow it. The model's config changes too; `share` gives a copy its own.

    kept: whether each layer stays.

    Raises:
        ValueError: the model has another number of layers, or none would stay.
    """
    layers = layers_of(model)
    if len(kept) != len(layers):
        raise ValueError(f"{len(kept)} layers were given, but the model has {len(layers)}.")
    if not any(kept):
        raise ValueError(f"at least one layer must stay, but all {len(kept)} would be removed.")
    if all(kept):
        return
    _hand_over_norms(blocks_of(model), kept)
    stay = list(itertools.compress(range(len(kept)), kept))
    set_layers(model, [layers[index] for index in stay], stay)


def set_layers(model: nn.Module, layers: Sequence[nn.Module], origins: Sequence[int]) -> None:
    """Replace a model's layers, and update what holds their numbers.

    origins: for each new layer, the old layer whose config entries it takes.
    """
    own = layers_of(model)
    del own[:]
    own.extend(layers)
    _renumber(model)
    for config in _configs(model):
        config.num_hidden_layers = len(layers)
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[index] for index in origins]


def _hand_over_norms(blocks: Sequence[Block], kept: Sequence[bool]) -> None:
    """Give each kept layer the output LayerNorm of the last removed layer directly after it."""
    stay = list(itertools.compress(range(len(kept)), kept))
    for index, following in itertools.pairwise([*stay, len(kept)]):
        if path := blocks[index].family.output_norm:
            blocks[index].set(path, blocks[following - 1].get(path))


def _renumber(model: nn.Module) -> None:
    """Update the layer indices (for a key-value cache) and the layer count that modules hold."""
    layers, family = layers_of(model), family_of(model.config)
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if getattr(module, "layer_idx", None) is not None:
                cast(Any, module).layer_idx = index
    parent = getattr(model, "base_model", model).get_submodule(family.layers.rpartition(".")[0])
    for name in family.depth:
        setattr(parent, name, len(layers))


def _configs(model: nn.Module) -> Iterable[Any]:
    """Each config of the model and its modules, once."""
    held = (getattr(module, "config", None) for module in model.modules())
    return {id(config): config for config in held if config is not None}.values()


def _keep_units(
    block: Block, inputs: Mapping[str, int], output: str, kept: tuple[int, ...], units: int
) -> int:
    """Keep some of the heads or neurons of a block, at least one; returns the remaining width.

    inputs, output: the projections before and after the units, as in `Family`.
    units: their number in the dense block.
    """
    for path, parts in inputs.items():
        projection = block.get(path)
        weight = matrix_of(projection, path)
        rows = _positions(kept, units, len(weight), parts)
        bias = cast(torch.Tensor | None, projection.bias)
        bias = None if bias is None else bias[rows]
        replace_projection(block, path, weight[rows], bias)
    projection = block.get(output)
    weight = matrix_of(projection, output)
    columns = _positions(kept, units, weight.shape[1])
    bias = cast(torch.Tensor | None, projection.bias)
    replace_projection(block, output, weight[:, columns], bias)
    return len(columns)


def _remove_all_heads(block: Block) -> None:
    """Keep only the bias that an attention block's output projection adds."""
    family = block.family
    matrix_of(block.output, family.output)
    constant = ConstantOutput(block.output)
    layer = getattr(block.attention, "layer_idx", None) if family.causal else None
    inside = family.output.removeprefix(f"{family.attention}.")
    if inside == family.output:
        block.set(family.attention, HeadlessAttention({}, layer))
        block.set(family.output, constant)
    else:
        block.set(family.attention, HeadlessAttention({inside: constant}, layer))


def _positions(kept: tuple[int, ...], units: int, width: int, parts: int = 1) -> torch.Tensor:
    """Positions of the kept units where `width` holds `parts` concatenated sets of all units."""
    positions = torch.arange(width).view(parts, units, -1)
    return positions[:, list(kept)].flatten()


def fold_scales(model: nn.Module) -> None:
    """Fold LayerScale into the weights of the blocks' output projections, in place. Outputs stay
    the same, and the scales become ones. A repair of the projection needs that."""
    with torch.no_grad():
        for block in blocks_of(model):
            for path, place in block.family.scales.items():
                projection, scale = block.get(path), cast(Any, block.get(place)).lambda1
                matrix_of(projection, path).mul_(scale[:, None])
                cast(nn.Parameter, projection.bias).mul_(scale)
                scale.fill_(1.0)


def matrix_of(projection: nn.Module, path: str = "") -> torch.Tensor:
    """The weight of a projection as (out_features, in_features).

    Raises:
        ValueError: it is no plain projection.
    """
    if type(projection) is nn.Linear:
        return projection.weight
    if type(projection) is Conv1D:  # transformers' transposed linear layer
        return projection.weight.T
    raise ValueError(
        f"{path} is a {type(projection).__name__}, but surgery cuts plain torch.nn.Linear layers: "
        "merge adapters and compress before quantising."
    )


def replace_projection(
    block: Block, path: str, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Replace a block's projection by one of the same kind.

    weight: (out_features, in_features). bias: (out_features,).
    """
    block.set(path, _resized(block.get(path), weight, bias))


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
        # An unchanged bias keeps its identity, so that it stays shared with the original.
        if not isinstance(bias, nn.Parameter):
            bias = nn.Parameter(bias.detach().clone(), requires_grad=trainable)
        resized.bias = bias
    return resized.train(projection.training)
