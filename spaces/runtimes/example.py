"""Example inputs for tracing: only names, types and shapes matter."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.runtimes.cached_graph import KEPT, POSITIONS

ROWS, LENGTH = 2, 24
"""Not 1, which tracing would treat as a constant; more tokens than a banded block (16)."""

EXAMPLE_PAST = 8
"""Past tokens in the cache."""
EXAMPLE_KEPT = (0, 3, 7)
"""Tokens whose logits are computed."""
PIXELS = "pixel_values"


def example_for(model: nn.Module, given: Batch | None = None) -> dict[str, torch.Tensor]:
    """Inputs of two rows on the CPU, with the names of `given`, or else those that the model takes.
    Texts are (batch, length) int64, images (batch, channels, height, width) float32."""
    config: Any = model.config
    names = tuple(given) if given else _input_names(model)
    if PIXELS not in names and "attention_mask" not in names:
        names = (*names, "attention_mask")  # without it, a graph could not serve padded batches
    if PIXELS in names:
        shape = given[PIXELS].shape[1:] if given else _image_shape(config)
        return {PIXELS: torch.linspace(-1, 1, ROWS * shape.numel()).view(ROWS, *shape)}
    length = min(LENGTH, int(getattr(config, "max_position_embeddings", LENGTH)) - 2)
    tokens = torch.arange(ROWS * length).view(ROWS, length) % int(config.vocab_size)
    values = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {name: values.get(name, torch.zeros_like(tokens)) for name in names}


def example_of_text(model: nn.Module) -> dict[str, torch.Tensor]:
    """Inputs of a language model with a cache of `EXAMPLE_PAST` tokens: new tokens, the mask of
    all, positions of the new ones, and the tokens whose logits are computed."""
    config: Any = model.config
    length = min(
        LENGTH,
        int(getattr(config, "max_position_embeddings", EXAMPLE_PAST + LENGTH)) - EXAMPLE_PAST,
    )
    tokens = torch.arange(ROWS * length).view(ROWS, length) % int(config.vocab_size)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones(ROWS, EXAMPLE_PAST + length, dtype=torch.long),
        POSITIONS: torch.arange(EXAMPLE_PAST, EXAMPLE_PAST + length).expand(ROWS, length).clone(),
        KEPT: torch.tensor(EXAMPLE_KEPT),
    }


def _input_names(model: nn.Module) -> tuple[str, ...]:
    taken = inspect.signature(model.forward).parameters
    if PIXELS in taken:
        return (PIXELS,)
    segments = getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in taken
    return ("input_ids", "attention_mask", *(("token_type_ids",) if segments else ()))


def _image_shape(config: Any) -> torch.Size:
    size = cast(Any, config.image_size)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.Size((int(config.num_channels), int(height), int(width)))
