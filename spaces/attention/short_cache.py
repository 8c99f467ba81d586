"""Layers of a key-value cache that keep less than every token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from transformers.cache_utils import DynamicLayer

Answer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""Query, key and value as `Attention.forward` takes them, and the scale -> its output."""


class ShortLayer(DynamicLayer):
    """The cached state of a text.

    Before each forward, `expect` gets the mask of the new tokens; the model then calls `update`,
    which adds them.
    """

    is_croppable = False
    by_row: ClassVar[tuple[str, ...]] = ("keys", "values")
    """Tensor attributes with one row per text."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def reset(self) -> None:
        super().reset()
        self.length = 0

    @abstractmethod
    def expect(self, mask: torch.Tensor) -> Answer | None:
        """mask: (batch, new) bool, True for a real token.

        Returns how the new tokens attend to the cache and to each other; None: the cache is empty,
        and they attend as without one.
        """

    def get_seq_length(self) -> int:
        """Length of all tokens, kept or not."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """For a mask of all tokens, because other layers may keep them."""
        return self.length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raises ValueError: dropped tokens cannot be restored."""
        if tokens_to_remove:
            raise ValueError(
                "a cache that keeps less than every token cannot be shortened, as assisted "
                "generation does: generate without an assistant, or compress with full attention."
            )

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._pick(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.keys is not None:
            self._pick(torch.arange(len(self.keys)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._pick(indices)

    def _pick(self, rows: torch.Tensor) -> None:
        if self.length:
            for name in self.by_row:
                tensor = getattr(self, name)
                setattr(self, name, tensor[rows.to(tensor.device)])
