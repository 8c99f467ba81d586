"""Text generation with an exported graph whose inputs and outputs include the key-value cache.

In addition to the torch model's inputs, the graph takes `past_key_values.i.key` and
`past_key_values.i.value` for each layer i, (batch, heads, past tokens, head_dim), and returns
`present.i.key` and `present.i.value` with the new tokens appended: optimum's names. A prompt is the
same graph without past tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from paretoformer.spaces.models import key_values

PAST, PRESENT = "past_key_values", "present"
POSITIONS = "position_ids"
KEPT = "logits_to_keep"
"""Input: positions of the tokens whose logits are computed, (tokens,)."""


def generates(model: nn.Module) -> bool:
    """Whether a model generates text, so that its graph needs a cache."""
    return bool(getattr(model, "can_generate", lambda: False)())


def names(prefix: str, layers: int) -> Iterator[str]:
    """Names of a cache's tensors: `past_key_values.0.key`, `past_key_values.0.value`, ..."""
    return (f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value"))


class CachedGraph(GenerationMixin, nn.Module):
    """A graph with the interface that transformers' `generate` needs.

    run: inputs by name -> an object with the graph's outputs as attributes.
    layers: of the cache. model: the torch model, for all other attributes that `generate` reads.
    """

    main_input_name = "input_ids"

    def __init__(self, run: Callable[..., Any], layers: int, model: nn.Module | None) -> None:
        super().__init__()
        self.run, self._hidden = run, (model,)  # no submodule: the graph has its own weights
        self.past, self.present = tuple(names(PAST, layers)), tuple(names(PRESENT, layers))
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_hidden":  # not set yet, for example during a copy
                raise
            return getattr(self._hidden[0], name)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids: (batch, length), the new tokens. attention_mask: (batch, past + length).

        cache: past tokens; new ones are added. Named past_key_values before transformers 5.24.
        logits_to_keep: positions of tokens, or how many at the end; 0: all.
        options: `use_cache` and `return_dict` have no effect.

        Returns the logits, (batch, tokens kept, vocabulary), and the cache.

        Raises:
            ValueError: an input or option that the graph does not have, or a cache with another
                number of layers.
        """
        asked = (name for name, each in options.items() if each is not None and each is not False)
        if unknown := sorted(set(asked) - {"use_cache", "return_dict"}):
            raise ValueError(f"an exported language model does not take {unknown}.")
        cache = past_key_values if cache is None else cache
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, POSITIONS: position_ids}
        inputs[KEPT] = _places(logits_to_keep, input_ids.shape[1])
        before = [] if cache is None else key_values.pairs_of(cache)
        if before and 2 * len(before) != len(self.past):
            raise ValueError(
                f"the cache has {len(before)} layers, but the model has {len(self.past) // 2}."
            )
        inputs |= zip(self.past if before else (), chain(*before), strict=True)
        found = self.run(**{name: each for name, each in inputs.items() if each is not None})
        output = CausalLMOutputWithPast(logits=found.logits)
        if cache is not None:
            after = iter([getattr(found, name) for name in self.present])
            key_values.write(cache, list(zip(after, after, strict=True)))
            output[key_values.OUTPUT] = cache
        return output

    def can_generate(self) -> bool:
        return True


def _places(kept: int | torch.Tensor, length: int) -> torch.Tensor:
    if isinstance(kept, torch.Tensor):
        return kept
    return torch.arange(length)[-kept:]  # -0: all of them
