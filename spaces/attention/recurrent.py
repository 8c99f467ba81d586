"""A key-value cache of one size for every length: the sums that kernelised attention needs.

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
"""(batch, heads, length, d) queries or keys, float32, the scale applied -> their features."""


class RecurrentLayer(ShortLayer):
    """keys: (batch, heads, features, d), the sum of φ(k)ᵀ v over all real tokens. values: (batch,
    heads, features, 1), that of φ(k)ᵀ. Both are float32."""

    def __init__(self, features: Features, scale: float) -> None:
        super().__init__()
        self.features, self.scale = features, scale
        self._real = torch.zeros(0, dtype=torch.bool)

    def expect(self, mask: torch.Tensor) -> Answer | None:
        self._real = mask
        if self.keys is None or self.values is None:
            return None
        return partial(self._attend, self.keys, self.values, mask)

    def _attend(
        self,
        sums: torch.Tensor,
        totals: torch.Tensor,
        real: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        groups = query.shape[1] // key.shape[1]
        key, value, sums, totals = (
            each.repeat_interleave(groups, dim=1) for each in (key, value, sums, totals)
        )
        keys = self.features(key.float() * scale**0.5) * real[:, None, :, None]
        output = kernel_attention(
            self.features(query.float() * scale**0.5),
            keys,
            value.float(),
            lengths=None,
            causal=True,
            before=torch.cat((sums, totals), dim=-1),
        )
        return output.to(value.dtype)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the new tokens."""
        keys = self.features(key_states.float() * self.scale**0.5) * self._real[:, None, :, None]
        sums, totals = keys.mT @ value_states.float(), keys.sum(dim=2)[..., None]
        if self.keys is not None and self.values is not None:
            sums, totals = sums + self.keys, totals + self.values
        self.keys, self.values, self.is_initialized = sums, totals, True
        self.device, self.dtype = sums.device, sums.dtype
        self.length += key_states.shape[-2]
        return key_states, value_states
