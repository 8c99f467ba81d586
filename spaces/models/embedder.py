"""An embedder: an encoder, or a decoder, whose output is one vector per text.

Vectors that are compared by their cosine have length one.

Pooling and normalisation are part of the forward pass, so every runtime serves and every timing
includes them. The weights and their names are those of the plain model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.nn import functional as F

Pooling = Literal["mean", "cls", "last"]
Similarity = Literal["cosine", "dot"]
POOLING = "sentence_pooling"
"""The config key that turns a model into an embedder."""
SIMILARITY = "sentence_similarity"
"""The config key for how vectors are compared."""


@dataclass(frozen=True)
class Embeddings:
    """An embedder's output. sentence_embedding: (rows, width)."""

    sentence_embedding: torch.Tensor

    def values(self) -> tuple[torch.Tensor, ...]:
        return (self.sentence_embedding,)


class _Embeds:
    architecture: type[nn.Module]
    """The model's own class, by which transformers knows the weights."""

    def forward(
        self, *arguments: Any, attention_mask: torch.Tensor | None = None, **others: Any
    ) -> Embeddings:
        output = self.architecture.forward(
            cast(nn.Module, self), *arguments, attention_mask=attention_mask, **others
        )
        hidden = output.last_hidden_state  # (rows, tokens, width)
        pooling: Pooling = cast(Any, self).config.sentence_pooling
        if pooling == "cls":
            pooled = hidden[:, 0]
        elif pooling == "last":
            pooled = _last(hidden, attention_mask)
        elif attention_mask is None:
            pooled = hidden.mean(dim=1)
        else:
            mask = attention_mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        if getattr(cast(Any, self).config, SIMILARITY, "cosine") == "dot":
            return Embeddings(pooled)
        return Embeddings(F.normalize(pooled, dim=-1))


def _last(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(rows, width) of the last real token, whatever side is padded."""
    if mask is None:
        return hidden[:, -1]
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * places).amax(dim=1).clamp(min=1) - 1
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _embedder_class(architecture: type[nn.Module]) -> type[nn.Module]:
    """One embedder class per model class, cached."""
    if architecture not in _CLASSES:
        name = f"{architecture.__name__}Embedder"
        own = {"architecture": architecture}
        _CLASSES[architecture] = type(name, (_Embeds, architecture), own)
    return _CLASSES[architecture]


def as_embedder(model: nn.Module, pooling: Pooling, similarity: Similarity = "cosine") -> nn.Module:
    """Turn a model into an embedder, in place; its own pooler, which is unused, is removed, and a
    decoder's key-value cache is off.

    similarity: of its vectors; those that are compared by their dot product keep their length.

    Raises:
        ValueError: an unknown pooling or similarity.
    """
    for what, value, known in (
        ("pooling", pooling, get_args(Pooling)),
        ("similarity", similarity, get_args(Similarity)),
    ):
        if value not in known:
            raise ValueError(f"{what} is one of {', '.join(known)}, but got {value!r}.")
    config = cast(Any, model).config
    config.sentence_pooling = pooling
    if getattr(config, "use_cache", False):
        config.use_cache = False
    if similarity != "cosine":
        config.sentence_similarity = similarity
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # type: ignore[assignment]
    model.__class__ = _embedder_class(type(model))
    return model


def as_its_config_says(model: nn.Module) -> nn.Module:
    """Turn a model into an embedder, in place, if its config says so."""
    config = cast(Any, model).config
    pooling = getattr(config, POOLING, None)
    similarity: Similarity = getattr(config, SIMILARITY, "cosine")
    return model if pooling is None else as_embedder(model, pooling, similarity)


def architecture_of(model: nn.Module) -> type[nn.Module]:
    """The transformers class of a model's weights."""
    return getattr(model, "architecture", type(model))
