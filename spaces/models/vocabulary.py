"""Vocabulary: an embedding table without the rows of tokens that the user's texts do not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

AT_ONCE = 4096
"""Tokens that are compared with all rows at once."""
COMPARED = 128
"""Random directions in which rows are compared, if they are wider (Johnson and Lindenstrauss)."""


@dataclass(frozen=True)
class Rows:
    """kept: (rows,) int64, the tokens whose rows stay, ascending. row_of: (vocabulary,) int32, for
    each token its row among these."""

    kept: torch.Tensor
    row_of: torch.Tensor


class ShortEmbedding(nn.Module):
    """An embedding table in which tokens may share a row.

    rows: of which `row_of` becomes a buffer. weight: (rows, width).
    """

    row_of: torch.Tensor

    def __init__(self, rows: Rows, weight: torch.Tensor, *, trainable: bool) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("row_of", rows.row_of.to(weight.device))
        self.weight = nn.Parameter(weight, requires_grad=trainable)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, length) -> (batch, length, width)."""
        return F.embedding(F.embedding(tokens, self.row_of[:, None])[..., 0], self.weight)


def unsuitable(model: nn.Module) -> str:
    """Why no row of the embedding table may go; empty when some may."""
    found = cast(Any, model)
    if type(found.get_input_embeddings()) is not nn.Embedding:
        return "the model reads no tokens, or changes their rows"
    if found.get_output_embeddings() is not None:
        return "its head predicts every token of the vocabulary"
    return ""


def used_tokens(
    texts: Iterable[Mapping[str, np.ndarray]], special: Sequence[int]
) -> tuple[list[int], float]:
    """The tokens of these encoded texts and the special ones, ascending; and the share of other
    tokens to expect in new texts: that of the tokens seen once (Good 1953)."""
    tokens = np.concatenate([text["input_ids"] for text in texts])
    found, counts = np.unique(tokens, return_counts=True)
    return sorted({*found.tolist(), *special}), float((counts == 1).sum() / len(tokens))


def nearest_rows(weight: torch.Tensor, tokens: Sequence[int]) -> Rows:
    """The row of each token: its own, or the nearest of those that stay, by cosine.

    weight: (vocabulary, width). tokens: those that stay.
    """
    kept, vectors = torch.tensor(tokens), weight.detach().float()
    if vectors.shape[1] > COMPARED:
        random = torch.Generator().manual_seed(0)
        directions = torch.randn(vectors.shape[1], COMPARED, generator=random)
        vectors = vectors @ directions.to(vectors.device)
    vectors = F.normalize(vectors, dim=-1)
    stay = vectors[kept.to(vectors.device)].T
    row_of = torch.cat([(part @ stay).argmax(dim=-1) for part in vectors.split(AT_ONCE)]).cpu()
    row_of[kept] = torch.arange(len(kept))
    return Rows(kept, row_of.to(torch.int32))


def shorten(model: nn.Module, rows: Rows) -> None:
    """Replace the model's embedding table, in place."""
    table = cast(Any, model).get_input_embeddings().weight
    _set(model, rows, table.detach()[rows.kept.to(table.device)].clone())


def shorten_empty(model: nn.Module, count: int) -> None:
    """As `shorten`, with values that are still to be loaded. count: of the rows that stay."""
    table = cast(Any, model).get_input_embeddings().weight
    nothing = torch.zeros(len(table), dtype=torch.int32)
    _set(model, Rows(torch.zeros(0), nothing), table.new_zeros(count, table.shape[1]))


def _set(model: nn.Module, rows: Rows, weight: torch.Tensor) -> None:
    trainable = cast(Any, model).get_input_embeddings().weight.requires_grad
    short = ShortEmbedding(rows, weight, trainable=trainable)
    cast(Any, model).set_input_embeddings(short.train(model.training))
