"""The key-value cache of a language model as plain tensors, two per layer."""

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
"""transformers 5.24 renamed `past_key_values` to `cache`."""
OUTPUT = "cache" if RENAMED else "past_key_values"
"""The attribute of a model's output that holds the cache."""


def argument(model: nn.Module) -> str:
    """The name of the cache argument of the model's forward."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def filled(pairs: Sequence[Pair]) -> DynamicCache:
    cache = DynamicCache()
    write(cache, pairs)
    return cache


def pairs_of(cache: Cache) -> list[Pair]:
    """Keys and values of each layer; empty for an empty cache."""
    layers: Sequence[Any] = cache.layers
    return [(each.keys, each.values) for each in layers if each.is_initialized]


def layers_of(cache: Cache) -> list[Any]:
    """A snapshot for `restore`, nearly free: a growing cache replaces its tensors and does not
    write to them."""
    return [copy.copy(each) for each in cache.layers]


def restore(cache: Cache, layers: Sequence[Any]) -> None:
    """Set a cache back to the snapshot of `layers_of`."""
    cache.layers[:] = [copy.copy(each) for each in layers]


def write(cache: Cache, pairs: Sequence[Pair]) -> None:
    """Replace a cache's content by these keys and values.

    Raises:
        ValueError: it has layers of another kind, such as a sliding window.
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
