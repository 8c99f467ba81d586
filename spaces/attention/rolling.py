"""A rolling key-value cache: of each row the first tokens and the last, which a window still sees.

Source: StreamingLLM (Xiong et al. 2023, arXiv:2309.17453), whose attention sinks are the global
tokens of a window. Differs in: keys keep the rotation of their place in the whole text, not in the
cache, so that every token is computed as it is without a cache, and texts do not grow beyond the
model's positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

SEEN = "paretoformer_seen"
"""Argument of the attention interface: (batch, queries, keys) bool, which keys a query sees."""
NOWHERE = -1
"""The place of a padded token."""


class RollingLayer(DynamicLayer):
    """The layer of a cache whose tokens are seen by those within `window` of them, `sinks` by all.

    keys, values: (batch, heads, slots, d). places: (batch, slots), of each slot's token among the
    real ones of its row. A row with fewer tokens than others has empty slots, at `NOWHERE`.
    """

    is_croppable = False

    def __init__(self, window: int, sinks: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window, self.sinks = window, sinks
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.length = 0
        self.places = self.counts = torch.zeros(0, dtype=torch.long)

    def expect(self, mask: torch.Tensor) -> torch.Tensor:
        """Say which of the tokens that come next are real, (batch, new).

        Returns (batch, new, slots + new) bool: which keys each of them will see.
        """
        mask = mask.to(torch.bool)
        if not self.length:
            self.counts = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
            self.places = self.counts.new_zeros(len(mask), 0)
        new = self.counts[:, None] + mask.cumsum(dim=1) - 1
        new = new.masked_fill(~mask, NOWHERE)
        self.counts = self.counts + mask.sum(dim=1)
        self.places = torch.cat((self.places, new), dim=1)
        query, key = new[:, :, None], self.places[:, None]
        near = (query - key < self.window) | (key < self.sinks)
        seen = near & (key <= query) & (key != NOWHERE)
        # A padded token, which sees none, sees itself: a softmax needs a key.
        slots = self.places.shape[1]
        return (
            seen | torch.eye(slots, dtype=torch.bool, device=mask.device)[slots - mask.shape[1] :]
        )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the slots and of the new tokens, which `expect` was told of."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        self.length += key_states.shape[-2]
        stays = (self.places != NOWHERE) & (
            (self.counts[:, None] - self.places < self.window) | (self.places < self.sinks)
        )
        slots = int(stays.sum(dim=1).max())
        if slots < stays.shape[1]:
            order = (~stays).to(torch.uint8).argsort(dim=1, stable=True)[:, :slots]
            self.places = self.places.masked_fill(~stays, NOWHERE).gather(1, order)
            index = order[:, None, :, None]
            self.keys = keys.take_along_dim(index, dim=2)
            self.values = values.take_along_dim(index, dim=2)
        return keys, values

    def get_seq_length(self) -> int:
        """Of all tokens, kept or not."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a mask for all tokens: other layers may keep them."""
        return self.length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raises ValueError: what has rolled out does not come back."""
        if tokens_to_remove:
            raise ValueError("a rolling cache cannot be shortened: assisted generation needs to.")

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._pick(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._pick(torch.arange(len(self.counts)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._pick(indices)

    def _pick(self, rows: torch.Tensor) -> None:
        if self.keys is not None and self.values is not None:
            rows = rows.to(self.keys.device)
            self.keys, self.values = self.keys[rows], self.values[rows]
            self.places, self.counts = self.places[rows], self.counts[rows]


def roll(module: nn.Module, window: int, sinks: int) -> None:
    """Let an attention module keep of a growing cache only what its window sees."""
    module.register_forward_pre_hook(_Rolls(window, sinks), with_kwargs=True)


class _Rolls:
    """Called in front of an attention module."""

    def __init__(self, window: int, sinks: int) -> None:
        self.window, self.sinks = window, sinks

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = next((e for e in (*args, *kwargs.values()) if isinstance(e, Cache)), None)
        if cache is None:
            return None
        index = module.layer_idx
        while len(cache.layers) <= index:
            cache.layers.append(DynamicLayer())
        layer: Any = cache.layers[index]
        if type(layer) is DynamicLayer and not layer.is_initialized:
            layer = cache.layers[index] = RollingLayer(self.window, self.sinks)
        if not isinstance(layer, RollingLayer):
            return None  # filled by somebody else, who keeps every token
        hidden = args[0] if args else kwargs["hidden_states"]
        rows, new = hidden.shape[:2]
        mask = kwargs.get("attention_mask")
        real = hidden.new_ones(rows, new) if mask is None else mask[:, -new:]
        before = layer.length
        seen = layer.expect(real)
        return (args, {**kwargs, SEEN: seen}) if before else None
