"""An embedder: an encoder whose output is one vector for each text, of length one.

Pooling and normalisation are part of the forward pass, so every runtime serves them and every
timing counts them. The weights, and their names, are those of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.nn import functional as F

Pooling = Literal["mean", "cls"]
POOLING = "sentence_pooling"
"""The key of a config that makes an embedder of an encoder."""


@dataclass(frozen=True)
class Embeddings:
    """What an embedder returns. sentence_embedding: (rows, width), each of length one."""

    sentence_embedding: torch.Tensor

    def values(self) -> tuple[torch.Tensor, ...]:
        return (self.sentence_embedding,)


class _Embeds:
    """The mixin that pools what the encoder behind it returns."""

    architecture: type[nn.Module]
    """The encoder's own class, as which transformers knows the weights."""

    def forward(
        self, *arguments: Any, attention_mask: torch.Tensor | None = None, **others: Any
    ) -> Embeddings:
        """(rows, tokens) -> `Embeddings`."""
        output = self.architecture.forward(
            cast(nn.Module, self), *arguments, attention_mask=attention_mask, **others
        )
        hidden = output.last_hidden_state  # (rows, tokens, width)
        if cast(Any, self).config.sentence_pooling == "cls":
            pooled = hidden[:, 0]
        elif attention_mask is None:
            pooled = hidden.mean(dim=1)
        else:
            mask = attention_mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return Embeddings(F.normalize(pooled, dim=-1))


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _embedder_class(architecture: type[nn.Module]) -> type[nn.Module]:
    """One for each class of encoders."""
    if architecture not in _CLASSES:
        name = f"{architecture.__name__}Embedder"
        own = {"architecture": architecture}
        _CLASSES[architecture] = type(name, (_Embeds, architecture), own)
    return _CLASSES[architecture]


def as_embedder(model: nn.Module, pooling: Pooling) -> nn.Module:
    """Make an encoder an embedder, in place; its own pooler, which none reads, goes.

    Raises:
        ValueError: an unknown pooling.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is one of {', '.join(get_args(Pooling))}, but got {pooling!r}.")
    cast(Any, model).config.sentence_pooling = pooling
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # type: ignore[assignment]
    model.__class__ = _embedder_class(type(model))
    return model


def as_its_config_says(model: nn.Module) -> nn.Module:
    """An embedder, in place, if the config of a model says so; else the model as it is."""
    pooling = getattr(cast(Any, model).config, POOLING, None)
    return model if pooling is None else as_embedder(model, pooling)


def architecture_of(model: nn.Module) -> type[nn.Module]:
    """The class of transformers that a model's weights belong to."""
    return getattr(model, "architecture", type(model))
