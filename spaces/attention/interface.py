"""The bridge to transformers: one attention function that calls each layer's mechanism.

transformers calls an attention function registered by name, with a mask built by a second function
of the same name. Without the second it passes no mask, and padding would be ignored silently; its
own for sdpa builds a (batch, 1, length, length) tensor. Ours passes the padding, (batch, length),
or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from paretoformer.spaces.attention.padding import tracing
from paretoformer.spaces.attention.short_cache import ShortLayer

IMPLEMENTATION = "paretoformer"
"""The name under which models select this function: `config._attn_implementation`."""

ANSWER = "paretoformer_answer"
"""Argument of the attention function: how new tokens attend to a cache layer that keeps less than
every token, a `short_cache.Answer`."""

MECHANISM = "paretoformer_attention"
"""The submodule of each attention module that holds its mechanism."""


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers: (batch, heads, length, d) becomes (batch, length, heads, d).

    New tokens attend exactly to a key-value cache, whatever the layer's mechanism: they are few,
    and approximations of a whole sequence do not apply. A mechanism with its own cache computes
    this itself. Attention dropout is not applied: the mechanisms never form its matrix.

    Raises:
        ValueError: the mask is not a padding mask.
    """
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ValueError(
            f"a compressed model takes a padding mask (batch, length), "
            f"but got a mask of shape {tuple(attention_mask.shape)}."
        )
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (answer := kwargs.get(ANSWER)) is not None:
        output = answer(query, key, value, scale)
    elif key.shape[-2] != query.shape[-2]:
        output = cached_attention(query, key, value, mask=attention_mask, scale=scale)
    else:
        mechanism = getattr(module, MECHANISM)
        output = mechanism(query, key, value, mask=attention_mask, causal=causal, scale=scale)
    return output.transpose(1, 2), None


def before_attention(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Forward pre-hook of a causal model's attention modules: replace an empty layer of a growing
    cache by the mechanism's own cache layer, if it has one."""
    cache = next((each for each in (*args, *kwargs.values()) if isinstance(each, Cache)), None)
    if cache is None or module.config._attn_implementation != IMPLEMENTATION:
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    index, mechanism = module.layer_idx, getattr(module, MECHANISM)
    while len(cache.layers) <= index:
        cache.layers.append(DynamicLayer())
    layer: Any = cache.layers[index]
    if type(layer) is DynamicLayer and not layer.is_initialized:
        scale = getattr(module, "scaling", None)
        scale = mechanism.head_dim**-0.5 if scale is None else scale
        layer = cache.layers[index] = mechanism.cache_layer(scale) or layer
    if not isinstance(layer, ShortLayer):
        return None
    rows, new = hidden.shape[:2]
    mask = kwargs.get("attention_mask")
    real = hidden.new_ones(rows, new) if mask is None else mask[:, -new:]
    answer = layer.expect(real.to(torch.bool))
    return None if answer is None else (args, {**kwargs, ANSWER: answer})


def cached_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Exact causal attention of the last tokens of a sequence to the whole sequence.

    query: (batch, heads, queries, d). key, value: (batch, heads or fewer, length, d).
    mask: (batch, length), True for a real token.
    """
    queries, length = query.shape[-2], key.shape[-2]
    past = torch.ones(queries, length, dtype=torch.bool, device=query.device)
    seen = past.tril(length - queries)[None, None]
    if mask is not None:
        seen = seen & mask[:, None, None, :]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scale, enable_gqa=True
    )


def padding_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int | torch.Tensor = 0,
    mask_function: Callable[..., Any] = bidirectional_mask_function,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """The padding, (batch, kv_length) bool, or None when there is none.

    Raises:
        ValueError: the model needs more than padding and causality, such as packed sequences, or a
            cache of a fixed size.
    """
    if mask_function not in (bidirectional_mask_function, causal_mask_function):
        raise ValueError("a compressed model takes one sequence a row: pad instead of packing.")
    if isinstance(q_offset, torch.Tensor) or q_offset + q_length != kv_length + kv_offset:
        raise ValueError("a compressed model takes a cache that grows: use a `DynamicCache`.")
    # A traced graph must serve rows with and without padding.
    if attention_mask is None or (not tracing() and bool(attention_mask.all())):
        return None
    return attention_mask.to(torch.bool)


AttentionInterface.register(IMPLEMENTATION, attention_forward)
AttentionMaskInterface.register(IMPLEMENTATION, padding_mask)
