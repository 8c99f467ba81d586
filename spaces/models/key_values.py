"""The key-value cache of a language model as plain tensors, two for each layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each (batch, heads, length, head_dim)."""
RENAMED = "cache" in CausalLMOutputWithPast.__dataclass_fields__
"""transformers 5.24 calls `cache` what was `past_key_values` before."""
OUTPUT = "cache" if RENAMED else "past_key_values"
"""The attribute of a model's output that holds the cache."""


def argument(model: nn.Module) -> str:
    """What the model's forward calls its cache."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def filled(pairs: Sequence[Pair]) -> DynamicCache:
    """A cache that holds these keys and values."""
    cache = DynamicCache()
    write(cache, pairs)
    return cache


def pairs_of(cache: Cache) -> list[Pair]:
    """Keys and values of each layer; none of a cache that is empty."""
    layers: Sequence[Any] = cache.layers
    return [(each.keys, each.values) for each in layers if each.is_initialized]


def layers_of(cache: Cache) -> list[Any]:
    """What `restore` brings back, at next to no cost: tensors of a growing cache are replaced, not
    written to."""
    return [copy.copy(each) for each in cache.layers]


def restore(cache: Cache, layers: Sequence[Any]) -> None:
    """Let a cache hold again what it held when `layers_of` was called."""
    cache.layers[:] = [copy.copy(each) for each in layers]


def write(cache: Cache, pairs: Sequence[Pair]) -> None:
    """Let a cache hold these keys and values in place of what it has.

    Raises:
        ValueError: it has layers of another kind, such as a window that slides.
    """
    for index, (keys, values) in enumerate(pairs):
        if index == len(cache.layers):
            cache.layers.append(DynamicLayer())
        layer: Any = cache.layers[index]
        if type(layer) is not DynamicLayer:
            raise ValueError(
                f"a {type(layer).__name__} is not a layer that grows with each token: use a plain "
                "`DynamicCache()`."
            )
        if not layer.is_initialized:
            layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
