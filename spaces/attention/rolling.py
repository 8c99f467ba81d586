"""A rolling key-value cache: the first tokens of each row and the last, which a window still sees.

Source: StreamingLLM (Xiong et al. 2023, arXiv:2309.17453), whose attention sinks are the global
tokens of a window. Differs in: keys keep the rotation of their position in the text, not in the
cache, so outputs are as without a cache, and texts are limited by the model's positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.short_cache import Answer, ShortLayer

NOWHERE = -1
"""The place of a padded token."""


class RollingLayer(ShortLayer):
    """Every token sees the first `sinks` tokens and those within `window`.

    keys, values: (batch, heads, slots, d). places: (batch, slots), position of each slot's token
        among the real tokens of its row. Shorter rows have empty slots, at `NOWHERE`.
    """

    by_row = ("keys", "values", "places", "counts")

    def __init__(self, window: int, sinks: int) -> None:
        super().__init__()
        self.window, self.sinks = window, sinks
        self.places = self.counts = torch.zeros(0, dtype=torch.long)

    def expect(self, mask: torch.Tensor) -> Answer | None:
        if not self.length:
            self.counts = mask.new_zeros(len(mask), dtype=torch.long)
            self.places = self.counts.new_zeros(len(mask), 0)
        new = self.counts[:, None] + mask.cumsum(dim=1) - 1
        new = new.masked_fill(~mask, NOWHERE)
        self.counts = self.counts + mask.sum(dim=1)
        self.places = torch.cat((self.places, new), dim=1)
        return partial(_exact, self._seen(new)) if self.length else None

    def _seen(self, new: torch.Tensor) -> torch.Tensor:
        """(batch, new, slots + new) bool: which keys the new tokens see."""
        query, key = new[:, :, None], self.places[:, None]
        near = (query - key < self.window) | (key < self.sinks)
        # A padded token sees only itself, because a softmax needs a key.
        own = torch.eye(key.shape[2], dtype=torch.bool, device=new.device)[-new.shape[1] :]
        return (near & (key <= query) & (key != NOWHERE)) | own

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the slots and of the new tokens."""
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


def _exact(
    seen: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen[:, None], scale=scale, enable_gqa=True
    )
