"""A key-value cache of constant size: the sums of kernelised attention.

Source: Katharopoulos et al. 2020 (arXiv:2006.16236), eq. 16 to 20: a transformer as a recurrent
network. Differs in: several new tokens are added at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from paretoformer.spaces.attention.kernelized import kernel_attention
from paretoformer.spaces.attention.short_cache import Answer, ShortLayer

Features = Callable[[torch.Tensor], torch.Tensor]
"""(batch, heads, length, d) queries or keys, float32, scaled -> their features."""


class RecurrentLayer(ShortLayer):
    """keys: (batch, heads, features, d), the sum of φ(k)ᵀ v over all real tokens. values: (batch,
    heads, features, 1), the sum of φ(k)ᵀ. Both are float32."""

    def __init__(self, features: Features, scale: float) -> None:
        super().__init__()
        self.features, self.scale = features, scale
        self._real = torch.zeros(0, dtype=torch.bool)
        self._new = torch.zeros(0)

    def expect(self, mask: torch.Tensor) -> Answer | None:
        self._real = mask
        if self.keys is None or self.values is None:
            return None
        return partial(self._attend, torch.cat((self.keys, self.values), dim=-1))

    def _attend(
        self,
        before: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """before: (batch, heads, features, d + 1), the sums before these tokens."""
        groups = query.shape[1] // key.shape[1]
        keys, values, before = (
            each.repeat_interleave(groups, dim=1) for each in (self._new, value.float(), before)
        )
        queries = self.features(query.float() * scale**0.5)
        output = kernel_attention(queries, keys, values, lengths=None, causal=True, before=before)
        return output.to(value.dtype)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the new tokens."""
        keys = self.features(key_states.float() * self.scale**0.5) * self._real[:, None, :, None]
        self._new = keys  # read by the function that `expect` returned
        sums, totals = keys.mT @ value_states.float(), keys.sum(dim=2)[..., None]
        if self.keys is not None and self.values is not None:
            sums, totals = sums + self.keys, totals + self.values
        self.keys, self.values, self.is_initialized = sums, totals, True
        self.device, self.dtype = sums.device, sums.dtype
        self.length += key_states.shape[-2]
        return key_states, value_states
